"""An observer in the network of a receiver, without code of tokenbucket. It counts UDP datagrams.

The counters of the IP stack are behind every hook of the receiver's interface. Those of the interface itself
are not: they count packets that a program at the ingress hook of the interface drops.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cluster.kubectl import Kubectl

_OBSERVE = """
import json, time

def datagrams():
    total = 0
    with open("/proc/net/snmp") as table:
        names, values = [line.split()[1:] for line in table if line.startswith("Udp:")]
    found = dict(zip(names, map(int, values)))
    with open("/proc/net/snmp6") as table:
        found |= {name: int(value) for name, value in map(str.split, table)}
    return sum(found.get(f"{family}{kind}", 0)
               for family in ("", "Udp6") for kind in ("InDatagrams", "NoPorts", "InErrors"))

last = None
with open("/tmp/samples", "w", buffering=1) as record:
    while True:
        before = time.monotonic()
        now = datagrams()
        if now != last:
            print(json.dumps([before, now, time.monotonic()]), file=record)
        last = now
        time.sleep(0.01)
"""
COMMAND = ("python3", "-c", _OBSERVE)
"""Runs in the receiver, as long as it lives."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The datagrams that had arrived at some moment between two times of the monotonic clock."""

    after_s: float
    datagrams: int
    before_s: float


def samples(kubectl: Kubectl, pod: str) -> list[Sample]:
    """Return one sample for each time that the observer of a pod saw its counter change."""
    lines = kubectl.exec(pod, "cat", "/tmp/samples").splitlines()
    return [Sample(*json.loads(line)) for line in lines]
