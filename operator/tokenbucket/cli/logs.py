"""Format logs: one line for each event, as key=value or as JSON."""

from __future__ import annotations

import enum
import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LogFormat(enum.StrEnum):
    """Values of ``--log-format``."""

    TEXT = "text"
    JSON = "json"


class _Formatter(logging.Formatter):
    def __init__(self, form: LogFormat) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        details = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
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


def set_up(form: LogFormat, level: str) -> None:
    """Send all logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    if level != "debug":
        logging.getLogger("kopf").setLevel(logging.ERROR)  # it reports every event
