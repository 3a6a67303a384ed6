"""The abilities of this node's interfaces to delay packets, as a value.

The agent assumes that an interface can delay packets until the kernel, or another program, refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tokenbucket.core.planning.hook import Interface
from tokenbucket.core.planning.reasons import Degradation, Reason

Refusals = Mapping[Interface, Degradation]
"""Interfaces that cannot have tokenbucket's queue or, inside a pod, its filter."""

_NO_FQ = Degradation(Reason.NO_FQ, "kernel: fq (sch_fq) is missing; excess packets are dropped")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which interfaces can delay packets."""

    fq: bool = True
    """Whether the kernel has the fq qdisc."""
    refusals: Refusals = field(default_factory=dict)

    def without(self, refusals: Refusals) -> Capabilities:
        """Return the capabilities that remain after these refusals."""
        return replace(self, refusals={**self.refusals, **refusals})

    def why_not_delay(self, interfaces: Iterable[Interface]) -> Degradation | None:
        """Return why one of the interfaces cannot delay packets, or None if all can."""
        for interface in interfaces:
            if interface in self.refusals:
                return self.refusals[interface]
        return None if self.fq else _NO_FQ
