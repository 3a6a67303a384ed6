"""Rescale the debts of meters when their rates change.

A meter is in debt while its word is in the future, because Delay charges packets before they leave. A debt of
one minute at a low rate must not delay packets for one minute at a high rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import RateChange


class Debts:
    """Rescales debts. Stores the word of each meter at the last decrease of its rate."""

    def __init__(self) -> None:
        self._slowed: dict[tuple[int, str], int] = {}

    def rescale(
        self, slot: int, words: Mapping[str, int], changes: Iterable[RateChange], now_q: int
    ) -> dict[str, int]:
        """Return the words of a slot's meters at their new rates.

        ``words`` are the theoretical arrival times by meter, and ``now_q`` is the current time as a word.
        """
        rescaled = dict(words)
        for change in changes:
            tat, key = words[change.meter], (slot, change.meter)
            if 0 < change.scales[0] < change.scales[1]:
                self._slowed[key] = tat
            slowed_tat = self._slowed.get(key, now_q)
            rescaled[change.meter] = gcra.at_new_rate(
                tat, slowed_tat, now_q, change.scales, change.max_debt_q
            )
        return rescaled
