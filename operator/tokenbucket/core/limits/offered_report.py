"""Define the offered traffic of a pod and direction as a value, and as the document of the live answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BURSTS_S = (0.25, 0.5, 1.0)
"""Bursts as times at the rate. Below 0.2 s, samples of 100 ms do not show the excess."""


@dataclass(frozen=True, slots=True)
class OfferedReport:
    """The traffic that a limit in Observe mode has seen. Rates are wire bytes per second.

    The percentiles are those of all seconds with traffic.
    """

    observed_s: int
    active_s: int
    """Number of seconds with traffic."""
    total_bytes: int
    median: int
    p90: int
    p99: int
    highest: int
    """The highest rate over 1 s."""
    peak: int
    """The highest rate over 100 ms."""
    bounds: Mapping[int, tuple[int, ...]]
    """Upper bounds of bytes, by rate in rising order: those that a bucket rejects, for each of ``BURSTS_S``;
    then those that wait or are dropped with Delay and the first of ``BURSTS_S``.
    """
    since: str = ""
    """Time of the first sample; empty if the agent does not report it. A restart loses earlier samples."""

    def rejected_bytes(self, rate: int, burst: int) -> int:
        """Return a bound of the bytes that a bucket rejects, for a rate and an index of ``BURSTS_S``."""
        return self._bound(rate, burst)

    def waiting_bytes(self, rate: int) -> int:
        """Return a bound of the bytes that wait or are dropped, with Delay and the first of ``BURSTS_S``."""
        return self._bound(rate, len(BURSTS_S))

    def _bound(self, rate: int, place: int) -> int:
        lower = [found[place] for known, found in self.bounds.items() if known <= rate]
        return lower[-1] if lower else self.total_bytes

    def as_document(self) -> dict[str, Any]:
        """Return the value of the field ``offered``."""
        return {
            **({"since": self.since} if self.since else {}),
            "observedSeconds": self.observed_s,
            "activeSeconds": self.active_s,
            "bytes": self.total_bytes,
            "bytesPerSecond": {
                "median": self.median,
                "p90": self.p90,
                "p99": self.p99,
                "max": self.highest,
                "max100ms": self.peak,
            },
            "burstSeconds": list(BURSTS_S),
            "bounds": [[rate, *found] for rate, found in self.bounds.items()],
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> OfferedReport:
        """Return the value of a document. Raises KeyError, TypeError or ValueError if it is none."""
        rates = document["bytesPerSecond"]
        if tuple(document["burstSeconds"]) != BURSTS_S:
            raise ValueError(f"bursts {document['burstSeconds']} are not {list(BURSTS_S)}")
        return cls(
            observed_s=int(document["observedSeconds"]),
            active_s=int(document["activeSeconds"]),
            total_bytes=int(document["bytes"]),
            median=int(rates["median"]),
            p90=int(rates["p90"]),
            p99=int(rates["p99"]),
            highest=int(rates["max"]),
            peak=int(rates["max100ms"]),
            bounds={int(rate): tuple(map(int, found)) for rate, *found in document["bounds"]},
            since=str(document.get("since") or ""),
        )
