"""Record the offered traffic of one pod and direction in bounded memory, to suggest a limit from it.

The agent samples a counter of bytes. Two results are kept: the distribution of rates over 1 s, and, for a few
rates, upper bounds of the bytes that exceed a bucket with this rate and one of a few bursts.

The followed rates are the 90th percentile, the 99th and its neighbors, and the maximum of the rates over 1 s.
They change with the traffic. A rate that was not followed before starts with the bounds of the next lower
rate. Without one, all bytes before exceed it.
"""

from __future__ import annotations

import math
import operator
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import accumulate

from tokenbucket.core.limits.fluid_bucket import LONGEST_S, FluidBucket
from tokenbucket.core.limits.offered_report import OfferedReport

_PER_OCTAVE = 16
_FIRST_OCTAVE, _LAST_OCTAVE = 10, 37
RATES = tuple(
    round(2 ** (step / _PER_OCTAVE))
    for step in range(_FIRST_OCTAVE * _PER_OCTAVE, _LAST_OCTAVE * _PER_OCTAVE + 1)
)
"""The scale of rates in bytes per second, from 8 kbit/s to 1 Tbit/s. Each rate is 4.4 % above the last."""
SAMPLE_S = 0.1
"""Interval of samples."""
_WINDOW_S = 1.0 - 1.5 * SAMPLE_S
"""Ten samples that are a little early are one window, and the nine after the first sample of a record."""
_BATCH = 600
"""Number of samples that are charged together, which takes less time."""
_REPORT_S = 60


class Offered:
    """The offered traffic of one pod and direction."""

    __slots__ = (
        "_buckets",
        "_counts",
        "_elapsed_s",
        "_peak",
        "_report",
        "_reported_s",
        "_sizes",
        "_times_s",
        "_total",
        "_window_bytes",
        "_window_s",
    )

    def __init__(self) -> None:
        self._elapsed_s, self._total, self._peak = 0.0, 0, 0.0
        self._window_s, self._window_bytes = 0.0, 0
        self._counts = array("I", bytes(4 * len(RATES)))
        """Number of seconds with traffic, by the lowest rate of the scale that is not below the second's."""
        self._sizes, self._times_s = array("Q"), array("d")
        """Samples that are not charged yet."""
        self._buckets: dict[int, FluidBucket] = {}
        """Those of the followed rates, by index in the scale."""
        self._report: OfferedReport | None = None
        self._reported_s = 0.0

    def add(self, sizes: Sequence[int], times_s: Sequence[float]) -> None:
        """Add samples of up to one second: the bytes offered, and in which time."""
        size_bytes, time_s = sum(sizes), sum(times_s)
        self._elapsed_s += time_s
        self._window_s += time_s
        if size_bytes:
            self._peak = max(self._peak, *map(operator.truediv, sizes, times_s))
            self._window_bytes += size_bytes
            self._sizes.extend(sizes)
            self._times_s.extend(times_s)
        elif self._sizes and not self._sizes[-1]:
            self._times_s[-1] += time_s
        elif self._total:
            self._sizes.append(0)
            self._times_s.append(time_s)
        if self._window_s >= _WINDOW_S:
            self._close_window()
        if len(self._sizes) >= _BATCH:
            self._charge()

    def _close_window(self) -> None:
        if self._window_bytes:
            seconds = max(1, round(self._window_s))  # a late sample covers several
            self._counts[_index_of(self._window_bytes / self._window_s)] += seconds
            self._total += self._window_bytes
        self._window_s, self._window_bytes = 0.0, 0

    def _charge(self) -> None:
        p90, p99, highest = (self._percentile(percent) for percent in (90, 99, 100))
        self._follow({p90, p99 - 1, p99, p99 + 1, highest}, keep=range(p99 - 2, p99 + 3))
        for bucket in self._buckets.values():
            bucket.charge(self._sizes, self._times_s)
        del self._sizes[:], self._times_s[:]

    def _follow(self, wanted: Collection[int], keep: Collection[int]) -> None:
        """Follow these rates, and those of ``keep`` that are followed already."""
        known = sorted(self._buckets)
        charged = self._total + self._window_bytes - sum(self._sizes)
        for index in sorted(wanted):
            if index in self._buckets or not 0 <= index < len(RATES):
                continue
            lower = [each for each in known if each < index]
            if lower:
                self._buckets[index] = self._buckets[lower[-1]].at_higher_rate(RATES[index])
            else:
                self._buckets[index] = FluidBucket(RATES[index], charged, LONGEST_S if charged else 0.0)
        for index in self._buckets.keys() - wanted - set(keep):
            del self._buckets[index]

    def _percentile(self, percent: int) -> int:
        """Return the index of the lowest rate that this share of the seconds with traffic does not exceed."""
        sums = list(accumulate(self._counts))
        return bisect_left(sums, max(1, math.ceil(sums[-1] * percent / 100)))

    def report(self) -> OfferedReport | None:
        """Return the results, or ``None`` before the first second with traffic.

        They are at most a minute old, and cover at least half of the time. A report of each second would
        charge samples one by one, which takes more time.
        """
        if self._total and self._elapsed_s >= self._reported_s + min(_REPORT_S, self._reported_s):
            self._charge()
            self._report, self._reported_s = self._new_report(), self._elapsed_s
        return self._report

    def _new_report(self) -> OfferedReport:
        p99 = self._percentile(99)
        median, p90, highest = (RATES[self._percentile(percent)] for percent in (50, 90, 100))
        return OfferedReport(
            observed_s=round(self._elapsed_s),
            active_s=sum(self._counts),
            total_bytes=self._total,
            median=median,
            p90=p90,
            p99=RATES[p99],
            highest=highest,
            peak=round(self._peak),
            bounds={
                RATES[index]: self._buckets[index].bounds for index in sorted(self._buckets) if index >= p99
            },
        )


def _index_of(rate: float) -> int:
    """Return the index of the lowest rate that is not below this one."""
    return min(bisect_left(RATES, rate), len(RATES) - 1)
