"""Writes that stand alone: one that is refused holds up no other, and is tried again later each time."""

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
"""The API server is away, too busy, or does not know us: it would say the same of every other object."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    due: float
    backoffs: Iterator[float]


class RetryTracker:
    """Objects go by their uid. Times are in seconds of one monotonic clock."""

    def __init__(self, again: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        """``again`` asks for another attempt after so many seconds."""
        self._again = again
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}

    async def make(self, uid: str, write: Callable[[], Awaitable[T]]) -> T | None:
        """What ``write`` returns; ``None`` where it is refused, or waits because it was.

        Raises ApiError when the answer was not about the object: nothing else should be tried now.
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
        """Forgets all others, which are no more."""
        self._refusals = {uid: refusal for uid, refusal in self._refusals.items() if uid in uids}

    def _note(self, uid: str, error: ApiError) -> None:
        known = self._refusals.get(uid)
        if not known or known.status != error.status:  # the same again is no news
            log.warning("write refused", extra={"error": str(error)})
        backoffs = known.backoffs if known else iter(Backoffs())
        wait_s = next(backoffs)
        self._refusals[uid] = _Refusal(error.status, self._clock() + wait_s, backoffs)
        self._again(wait_s)
