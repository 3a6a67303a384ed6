"""Bounds on the received traffic, from counters that do not belong to tokenbucket.

The IP layer of the receiving network namespace counts behind each hook, so it does not count packets that
tokenbucket drops. A GSO packet and its headers count once, so the counters never exceed the charges of the
limit.

As a program in a pod, this file prints samples until it is killed. It needs only the standard library.
"""

from __future__ import annotations

import itertools
import math
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

PERIOD_S = 0.02
_ETHERNET_BYTES = 14
_FRAME_BYTES, _SUPER_PACKET_BYTES = 1514, 65_550
_CLOCK = 1.001
"""A limit may be this much faster: its clock and its rate are rounded."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at a moment between two readings of the receiver's clock."""

    after_s: float
    before_s: float
    bytes: int
    packets: int = 0
    """Packets without ICMP, which the node also sends within the reserve."""
    segments: int = 0
    """TCP segments. They indicate GSO packets."""

    def __str__(self) -> str:
        return f"{self.after_s} {self.before_s} {self.bytes} {self.packets} {self.segments} ."


def samples_of(record: str) -> list[Sample]:
    """Return the samples that a program printed. The last line may not be complete yet."""
    lines = (line.split() for line in record.splitlines() if line.endswith("."))
    return [Sample(float(after), float(before), *map(int, counts)) for after, before, *counts, _ in lines]


def open_counters() -> list[IO[str]]:
    """Open the counters of the IP layer, of the network namespace of this thread."""
    return [open(f"/proc/thread-self/net/{name}") for name in ("snmp", "netstat", "snmp6")]  # noqa: PTH123


def take(counters: Iterable[IO[str]]) -> Sample:
    """Read the counters, between two readings of the clock."""
    after_s = time.monotonic()
    texts = []
    for file in counters:
        file.seek(0)
        texts.append(file.read())
    before_s = time.monotonic()
    found = dict(itertools.chain(pairs(texts[0]), pairs(texts[1]), map(str.split, texts[2].splitlines())))
    count = {name: int(value) for name, value in found.items()}
    frames = count["Ip:InReceives"] + count["Ip6InReceives"]
    size = count["IpExt:InOctets"] + count["Ip6InOctets"]
    for cast in ("Mcast", "Bcast"):  # neighbor discovery of the node, which passes within the reserve
        frames -= count[f"IpExt:In{cast}Pkts"]
        size -= count[f"IpExt:In{cast}Octets"] + count[f"Ip6In{cast}Octets"]
    frames -= count["Ip6InMcastPkts"]
    # The same multicast, on an interface without IPv6. The kernel does not count its bytes separately.
    frames -= count["Ip6InDiscards"]
    size -= count["Ip6InDiscards"] * _FRAME_BYTES
    size += frames * _ETHERNET_BYTES
    packets = frames - count["Icmp:InMsgs"] - count["Icmp6InMsgs"]
    return Sample(after_s, before_s, size, packets, count["Tcp:InSegs"])


def pairs(text: str) -> Iterable[tuple[str, str]]:
    """Yield names and values of a file that has a line of names before each line of values."""
    lines = [line.split() for line in text.splitlines()]
    for (prefix, *names), (_, *values) in zip(lines[::2], lines[1::2], strict=True):
        yield from zip((prefix + name for name in names), values, strict=True)


def total(samples: Sequence[Sample]) -> Sample:
    """Return the sum of the samples of several receivers. The samples are taken in sequence."""
    return Sample(
        min(each.after_s for each in samples),
        max(each.before_s for each in samples),
        *(sum(getattr(each, count) for each in samples) for count in ("bytes", "packets", "segments")),
    )


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest traffic that a limit admits. A rate of 0 is no bound."""

    bytes_per_s: float = 0
    burst_bytes: int = 0
    packets_per_s: float = 0
    burst_packets: int = 0

    def exceeded(self, samples: Sequence[Sample]) -> str:
        """Describe the excess in words. Return an empty string if no time span has excess.

        From the first sample on, the bound is rate x time + burst + one packet. Later spans get the time of
        the slowest sample in addition, because a machine that stops the observer also stops packets on their
        path.
        """
        if len(samples) < 2:
            return ""
        super_packets = samples[-1].segments > samples[0].segments
        largest = _SUPER_PACKET_BYTES if super_packets else _FRAME_BYTES
        meters = (
            ("bytes", _bytes_of, self.bytes_per_s, self.burst_bytes + largest),
            ("packets", _packets_of, self.packets_per_s, self.burst_packets + 1),
        )
        for unit, count, per_s, burst in meters:
            if per_s and (over := _worst(samples, count, _CLOCK * per_s, burst)) > 0:
                return f"{over:.0f} {unit} above {per_s:.0f}/s x time + burst + one packet"
        return ""


Count = Callable[[Sample], int]


def _bytes_of(sample: Sample) -> int:
    return sample.bytes


def _packets_of(sample: Sample) -> int:
    return sample.packets


def _worst(samples: Sequence[Sample], count: Count, per_s: float, burst: float) -> float:
    first = samples[0]
    from_first = max(
        count(each) - count(first) - per_s * (each.before_s - first.after_s) for each in samples[1:]
    )
    slowest_s = max(later.before_s - sooner.after_s for sooner, later in itertools.pairwise(samples))
    anywhere = most_between(samples, per_s, count) - per_s * slowest_s
    return max(from_first, anywhere) - burst


def most_between(samples: Sequence[Sample], per_s: float, count: Count = _bytes_of) -> float:
    """Return the largest traffic between any two samples, less the rate x the longest time between them.

    The result shows a gap in a limit, and a burst that is admitted twice.
    """
    most, least = -math.inf, math.inf
    for each in samples:
        least = min(least, count(each) - per_s * each.after_s)
        most = max(most, count(each) - per_s * each.before_s - least)
    return most


def excess(samples: Sequence[Sample], bits_per_s: int, burst: int) -> int:
    """Return the bytes by which any time span exceeds the rate and one burst."""
    return round(most_between(samples, _CLOCK * bits_per_s / 8) - burst)


def main(period_s: str, seconds: str, port: str = "") -> None:
    """Print samples for so many seconds. An open UDP port prevents port-unreachable errors from the pod."""
    end_s = time.monotonic() + float(seconds)
    counters = open_counters()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        if port:
            receiver.bind(("", int(port)))
        while time.monotonic() < end_s:
            print(take(counters), flush=True)
            time.sleep(float(period_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
