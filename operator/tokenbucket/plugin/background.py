"""Do work beside the main thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def started(work: Callable[[], T]) -> Future[T]:
    """Start work in a thread. The command can end before the work does."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the reader of the result raises it
            found.set_exception(error)

    Thread(target=run, name="background", daemon=True).start()
    return found
