"""Retry rejected writes with backoff. A rejected write does not block other writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tokenbucket.apiserver.watch import Backoffs
from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

T = TypeVar("T")
_OF_NO_OBJECT = frozenset({0, 401, 429, 502, 503})
"""Status codes that do not depend on the object: server unavailable, overloaded, or not authenticated."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    due: float
    backoffs: Iterator[float]


class RetryTracker:
    """Track rejected writes by the uid of the object. Times are seconds of a monotonic clock."""

    def __init__(self, again: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Create a tracker. ``again`` requests another attempt after a number of seconds."""
        self._again = again
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}

    async def make(self, uid: str, write: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of ``write``, or ``None`` if the write was rejected or its retry is not due.

        Raises ApiError if the error does not depend on the object. Stop writing then.
        """
        known = self._refusals.get(uid)
        if known and self._clock() < known.due:
            return None
        try:
            result = await write()
        except ApiError as error:
            if error.status in _OF_NO_OBJECT:
                raise
            self._note(uid, error)
            return None
        self._refusals.pop(uid, None)
        return result

    def keep(self, uids: Collection[str]) -> None:
        """Forget all other objects, which no longer exist."""
        self._refusals = {uid: refusal for uid, refusal in self._refusals.items() if uid in uids}

    def _note(self, uid: str, error: ApiError) -> None:
        known = self._refusals.get(uid)
        if not known or known.status != error.status:  # log an error only if it changes
            log.warning("write rejected", extra={"error": str(error)})
        backoffs = known.backoffs if known else iter(Backoffs())
        wait_s = next(backoffs)
        self._refusals[uid] = _Refusal(error.status, self._clock() + wait_s, backoffs)
        self._again(wait_s)
