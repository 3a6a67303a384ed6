"""The logs of the commands."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tokenbucket.cli.output import LogFormat, set_up_logs


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Restore the handlers and levels of the loggers."""
    root, own = logging.getLogger(), logging.getLogger("tokenbucket")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def test_only_the_projects_own_modules_log_at_debug_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Log the warnings of libraries."""
    set_up_logs(LogFormat.TEXT, "debug")
    for name in ("tokenbucket.agent.loop", "pyroute2.netlink"):
        logging.getLogger(name).debug("detail")
        logging.getLogger(name).warning("warning")
    assert [line.split(" event=")[1].split()[0] for line in capsys.readouterr().err.splitlines()] == [
        "detail",
        "warning",
        "warning",
    ]
