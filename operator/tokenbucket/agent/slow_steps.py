"""Log lines about steps that take long.

A request to the kernel waits for the lock of rtnetlink without a limit, and no signal interrupts it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_LONG_S = 10.0


@contextmanager
def reported(step: str) -> Iterator[None]:
    """Log once that a step takes long, while it does."""
    details = {"step": step, "seconds": _LONG_S}
    timer = threading.Timer(_LONG_S, log.warning, ["waiting for the kernel"], {"extra": details})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
