"""The abilities of this node's interfaces, as a value.

The agent assumes that an interface can delay packets, and can have a filter of clsact, until the kernel or
another program rejects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import DataPlane, Interface
from tokenbucket.core.planning.reasons import Reason


class Degradation(NamedTuple):
    """Why a limit cannot delay packets. ``message`` has the form ``object: problem; action``."""

    reason: Reason
    message: str


Rejections = Mapping[Interface, Degradation]
"""Interfaces that cannot have tokenbucket's queue or, inside a pod, its filter."""

_NO_FQ = Degradation(Reason.NO_FQ, "kernel: fq (sch_fq) is missing")
_NO_TCX = Degradation(
    Reason.NO_QUEUE_IN_POD,
    "pod: packets bypass the node's queues, and a queue inside the pod needs tcx (--attach)",
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The abilities of the node's interfaces."""

    fq: bool = True
    """Whether the kernel has the fq qdisc."""
    rejections: Rejections = field(default_factory=dict)

    data_plane: DataPlane = field(default_factory=DataPlane)

    def without(
        self, rejections: Rejections, no_clsact: AbstractSet[Interface] = frozenset()
    ) -> Capabilities:
        """Return the capabilities that remain after these rejections."""
        data_plane = replace(self.data_plane, no_clsact=self.data_plane.no_clsact | no_clsact)
        return replace(self, rejections={**self.rejections, **rejections}, data_plane=data_plane)

    def with_changed_namespace(self, inode: int) -> Capabilities:
        """Return the capabilities after others changed a pod's namespace: a filter may have a place now."""
        rejections = {
            interface: each
            for interface, each in self.rejections.items()
            if interface.namespace != inode or each.reason is not Reason.NO_FILTER_IN_POD
        }
        return replace(self, rejections=rejections)

    def with_bypass(self, directions: AbstractSet[Direction]) -> Capabilities:
        """Return the capabilities of a node where packets bypass host-side hooks."""
        bypassed = self.data_plane.bypassed | directions
        return replace(self, data_plane=replace(self.data_plane, bypassed=bypassed))

    def why_not_delay(self, interfaces: Iterable[Interface]) -> Degradation | None:
        """Return why one of the interfaces cannot delay packets, or None if all can."""
        interfaces = tuple(interfaces)
        rejected = (self.rejections[interface] for interface in interfaces if interface in self.rejections)
        why_not = next(rejected, None if self.fq else _NO_FQ)
        if any(each.is_ifb for each in interfaces) and not self.data_plane.may_use_tcx:
            why_not = _NO_TCX
        return why_not and why_not._replace(message=f"{why_not.message}; excess packets are dropped")

    def why_not_attach(self, interface: Interface) -> str:
        """Return why an interface inside a pod cannot have a filter; an empty text if it can."""
        rejection = self.rejections.get(interface)
        return rejection.message if rejection and rejection.reason is not Reason.NO_FQ else ""
