"""Choose the place of a limit: the end, the hook and the mechanism, from facts about the node."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tokenbucket.core.api.policy import Direction


class Hook(enum.StrEnum):
    """The two hooks of tc, as the interface sees them."""

    INGRESS = "ingress"
    EGRESS = "egress"


class End(enum.Enum):
    """The two interfaces of a pod's veth pair. Interfaces of other kinds have no end on the node."""

    HOST = "host"
    POD = "pod"


class Mechanism(enum.StrEnum):
    """How a program is attached. The kernel runs XDP before tcx, and tcx before the filters of clsact."""

    CLSACT = "clsact"
    TCX = "tcx"
    XDP = "XDP"


IFB = 0x7462
"""The index of tokenbucket's ifb device, the same in the namespace of each pod that needs one."""


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """An interface in the network namespace of the node (inode 0), or of a pod (inode of its namespace)."""

    ifindex: int
    namespace: int = 0

    @property
    def is_ifb(self) -> bool:
        """Whether this is tokenbucket's ifb device: received packets of the pod wait in its queue."""
        return bool(self.namespace) and self.ifindex == IFB


@dataclass(frozen=True, slots=True, order=True)
class HookPoint:
    """A hook of one interface, and the mechanism by which tokenbucket's program is there."""

    interface: Interface
    hook: Hook
    mechanism: Mechanism = Mechanism.CLSACT

    def __str__(self) -> str:
        return attachment_name(self.mechanism, self.hook, in_pod=bool(self.interface.namespace))


def attachment_name(mechanism: Mechanism, hook: Hook, *, in_pod: bool) -> str:
    """Return the text for an attachment in statuses, such as ``pod tcx/ingress``."""
    return f"{'pod ' if in_pod else ''}{mechanism}/{hook}"


def device_hook(direction: Direction) -> Hook:
    """Return the hook of an interface for its own traffic, named as the interface sees it."""
    return Hook(direction.value)


class AttachMode(enum.StrEnum):
    """The configured mechanism, ``agent.attach``."""

    AUTO = "auto"
    """clsact, or tcx if filters of clsact do not run or are removed."""
    CLSACT = "clsact"
    TCX = "tcx"


@dataclass(frozen=True, slots=True)
class DataPlane:
    """The facts about a node that decide where its limits are attached."""

    mode: AttachMode = AttachMode.AUTO
    has_tcx: bool = False
    """Whether the kernel has tcx (Linux 6.6)."""
    is_shared: bool = False
    """Whether foreign programs share hooks of pod interfaces with limits, or did before.

    After a node has used tcx, it continues to use tcx, because a change costs time and has no advantage.
    """
    redirects: bool = False
    """Whether foreign programs at host-side ingress hooks can redirect packets past the host-side interface
    of a pod (``bpf_redirect_peer``)."""
    bypassed: frozenset[Direction] = frozenset()
    """Directions in which counters have shown that packets bypass the host-side interface."""
    intercepts: bool = False
    """Whether XDP programs on host-side interfaces process egress packets of pods before every hook."""
    no_clsact: frozenset[Interface] = frozenset()
    """Interfaces whose clsact other programs use, or from which they remove filters repeatedly."""

    def mechanism(self, interface: Interface) -> Mechanism:
        """Return the mechanism for an interface."""
        if not self.may_use_tcx:
            return Mechanism.CLSACT
        in_pod = bool(interface.namespace)  # a pod can remove a clsact filter, but no link
        if self.mode is AttachMode.TCX or in_pod or self.is_shared or interface in self.no_clsact:
            return Mechanism.TCX
        return Mechanism.CLSACT

    def end_and_hook(self, direction: Direction, *, delays: bool, has_pod_side: bool) -> tuple[End, Hook]:
        """Return the end and the hook that see a pod's traffic of a direction.

        Ingress packets of a pod leave its host-side interface, unless a program redirects them past it.
        Egress packets enter the host-side interface, where XDP runs first. A qdisc delays packets only when
        they leave an interface: egress packets on the pod-side interface.
        """
        is_bypassed = direction in self.bypassed
        if direction is Direction.EGRESS:
            in_pod = delays or (has_pod_side and (is_bypassed or self.intercepts))
            return (End.POD, Hook.EGRESS) if in_pod else (End.HOST, Hook.INGRESS)
        in_pod = has_pod_side and (is_bypassed or (self.redirects and not delays))
        return (End.POD, Hook.INGRESS) if in_pod else (End.HOST, Hook.EGRESS)

    @property
    def may_use_tcx(self) -> bool:
        """Return whether limits may be attached by tcx."""
        return self.has_tcx and self.mode is not AttachMode.CLSACT
