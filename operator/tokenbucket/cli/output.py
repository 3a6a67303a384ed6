"""Format results as a table, JSON or YAML, and logs as one line for each event: key=value or JSON."""

from __future__ import annotations

import enum
import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

_RECORD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Format(enum.StrEnum):
    """Values of ``-o``."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def structured(value: Any, form: Format) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return a value as JSON or YAML text."""
    if form is Format.JSON:
        return json.dumps(value, indent=2)
    return yaml.safe_dump(value, sort_keys=False).rstrip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with left-aligned columns, three spaces apart, in the format of kubectl."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


class LogFormat(enum.StrEnum):
    """Values of ``--log-format``."""

    TEXT = "text"
    JSON = "json"


class _LogFormatter(logging.Formatter):
    def __init__(self, form: LogFormat) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        details = {key: value for key, value in record.__dict__.items() if key not in _RECORD_FIELDS}
        if record.exc_info:
            details["exception"] = self.formatException(record.exc_info)
        head = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if self._form is LogFormat.JSON:
            return json.dumps({**head, **details}, default=str)
        return " ".join(f"{key}={_quoted(value)}" for key, value in {**head, **details}.items())


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text


def set_up_logs(form: LogFormat, level: str) -> None:
    """Send all logs to stderr. Libraries do not log at debug level: pyroute2 has a line for each message."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter(form))
    libraries = "info" if level == "debug" else level
    logging.basicConfig(handlers=[handler], level=libraries.upper(), force=True)
    logging.getLogger("tokenbucket").setLevel(level.upper())
    if level != "debug":
        logging.getLogger("kopf").setLevel(logging.ERROR)  # it reports every event
