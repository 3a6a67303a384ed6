"""Read the limits that the annotations of a pod declare.

The CNI bandwidth plugin and Cilium define ``kubernetes.io/*-bandwidth``, and Calico defines
``qos.projectcalico.org/*``, which has precedence. Rates and bursts are quantities in bits or in packets.
Calico's annotations of peak rates, connections and code points are not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenbucket import units
from tokenbucket.core.api.parse_limit import BURST_BYTES, BURST_PACKETS, BURST_TIME_S, RATE_BITS, RATE_PACKETS
from tokenbucket.core.api.pod import Annotated
from tokenbucket.core.api.policy import Burst, Direction, Limit, Policy, Rate
from tokenbucket.core.api.selector import Selector

NAME = "@annotations"
"""In place of the name of a policy. No policy can have it."""
CALICO = "qos.projectcalico.org/"
_CALICO_BURST_BITS, _CALICO_BURST_PACKETS = 4 * 2**30, 5
"""Defaults that Calico documents. The documents of the others name no default."""


@dataclass(frozen=True, slots=True)
class _Range:
    """The valid values of an annotation. A larger value than ``most`` has the effect of ``most``."""

    low: int
    high: int
    most: int
    text: str


_BANDWIDTH = _Range(RATE_BITS[0], 10**15, RATE_BITS[1], "8k to 1P bits per second")
_PACKET_RATE = _Range(RATE_PACKETS[0], 10**12, RATE_PACKETS[1], "1 to 1T packets per second")
_BURST = _Range(1_000, 8 * BURST_BYTES[1], 8 * BURST_BYTES[1], "1k to 32Gi bits")
_PACKET_BURST = _Range(1, 10**12, BURST_PACKETS[1], "1 to 1T packets")


def read_annotations(namespace: str, annotations: object) -> Annotated | None:
    """Return the limits that annotations declare, or None if there is no annotation of a limit."""
    if not isinstance(annotations, Mapping):
        return None
    limits, problems = {}, {}
    for direction in Direction:
        given = _Annotations(annotations)
        limit = given.limit(direction)
        if limit:
            limits[direction] = limit
        if given.problems:
            problems[direction] = "; ".join(given.problems)
    if not (limits or problems):
        return None
    return Annotated(Policy(namespace, NAME, Selector(), limits), problems)


@dataclass(frozen=True, slots=True)
class _Annotations:
    """The annotations of a pod, and the problems of one direction."""

    values: Mapping[object, object]
    problems: list[str] = field(default_factory=list)

    def limit(self, direction: Direction) -> Limit | None:
        """Return the limit of a direction, or None if there is no valid rate."""
        calico = f"{CALICO}{direction}"
        bandwidth = f"{calico}Bandwidth"
        is_calico = bandwidth in self.values
        bandwidth = bandwidth if is_calico else f"kubernetes.io/{direction}-bandwidth"
        bits, packets = self._number(bandwidth, _BANDWIDTH), self._number(f"{calico}PacketRate", _PACKET_RATE)
        burst_bits = self._burst(f"{calico}Burst", _BURST, bandwidth)
        burst_packets = self._burst(f"{calico}PacketBurst", _PACKET_BURST, f"{calico}PacketRate")
        if not (bits or packets):
            return None
        if is_calico:
            burst_bits = burst_bits or _CALICO_BURST_BITS
        burst_bytes = burst_bits and max(BURST_BYTES[0], burst_bits // 8)
        burst = Burst(
            burst_bytes and bits and min(burst_bytes, bits * BURST_TIME_S // 8),
            packets and min(burst_packets or _CALICO_BURST_PACKETS, packets * BURST_TIME_S),
        )
        return Limit(Rate(bits, packets), burst)

    def _burst(self, name: str, valid: _Range, rate: str) -> int | None:
        if name in self.values and rate not in self.values:
            self.problems.append(f"{name}: needs {rate}; set it, or remove the burst")
            return None
        return self._number(name, valid)

    def _number(self, name: str, valid: _Range) -> int | None:
        """Return the value of an annotation, rounded up, as Kubernetes rounds it. None if it is not valid."""
        if name not in self.values:
            return None
        value = self.values[name]
        try:
            number = math.ceil(units.quantity(value))
        except ValueError as error:
            self.problems.append(f"{name}: {value!r:.48} {error}")
            return None
        if valid.low <= number <= valid.high:
            return min(number, valid.most)
        self.problems.append(f"{name}: {value!r:.48} must be from {valid.text}")
        return None
