"""How much more than rate x time + burst a receiver gets in any time, from the counters of its namespace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.netns.lab import entered
from tests.observer import Sample, most_between, pairs

PERIOD_S = 0.01
SEGMENT_HEADERS_BYTES = 66
"""Of Ethernet, IPv4, and TCP with timestamps. An interface counts them once for each GSO packet."""
_DEVICE, _SNMP = Path("/proc/thread-self/net/dev"), Path("/proc/thread-self/net/snmp")


@contextlib.contextmanager
def beyond(netns: str, bits_per_s: int, burst_bytes: int, numbers: dict[str, float]) -> Iterator[None]:
    """Add the excess of any time span, in milliseconds at the rate, to the numbers."""
    samples: list[Sample] = []
    ended = threading.Event()

    def observe() -> None:
        with entered(netns):
            while not ended.wait(PERIOD_S):
                samples.append(_take())

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        yield
    finally:
        ended.set()
        observer.join()
    excess_bytes = most_between(samples, bits_per_s / 8) - burst_bytes
    numbers["beyond rate x time + burst, ms"] = max(0.0, 8000 * excess_bytes / bits_per_s)


def _take() -> Sample:
    """Return the bytes on the wire that eth0 received."""
    after_s = time.monotonic()
    devices, protocols = _DEVICE.read_text(), _SNMP.read_text()
    before_s = time.monotonic()
    (device,) = (line.split() for line in devices.splitlines() if line.lstrip().startswith("eth0:"))
    count = {name: int(value) for name, value in pairs(protocols)}
    datagrams = sum(count[f"Udp:{name}"] for name in ("InDatagrams", "NoPorts", "InErrors"))
    merged = count["Tcp:InSegs"] - (int(device[2]) - datagrams)
    return Sample(after_s, before_s, int(device[1]) + SEGMENT_HEADERS_BYTES * merged)
