"""The choice of the end, the hook and the mechanism of each limit: pure functions of facts about the node."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.hook import End, Hook, Interface, Mechanism


class AttachMode(enum.StrEnum):
    """The configured mechanism, ``agent.attach``."""

    AUTO = "auto"
    """clsact, or tcx where clsact would not run or not stay."""
    CLSACT = "clsact"
    TCX = "tcx"


@dataclass(frozen=True, slots=True)
class DataPlane:
    """The facts about a node that decide where its limits are attached."""

    mode: AttachMode = AttachMode.AUTO
    has_tcx: bool = False
    """Whether the kernel has tcx (Linux 6.6)."""
    is_shared: bool = False
    """Whether programs of others share the hooks of pods' interfaces with limits, or did before.

    A node that uses tcx once continues to: tcx has no disadvantage, and a change costs time.
    """
    redirects: bool = False
    """Whether programs of others at host-side ingress hooks can redirect packets into pods, past the host
    side of their interfaces (``bpf_redirect_peer``)."""
    bypasses: bool = False
    """Whether counters showed that packets are redirected past the host side."""
    no_clsact: frozenset[Interface] = frozenset()
    """Interfaces where clsact is in use by others, or where others keep removing filters."""

    def mechanism(self, interface: Interface) -> Mechanism:
        """Return the mechanism for an interface."""
        if not self.may_use_tcx:
            return Mechanism.CLSACT
        in_pod = bool(interface.namespace)  # a pod can remove a filter of clsact, and no link
        if self.mode is AttachMode.TCX or in_pod or self.is_shared or interface in self.no_clsact:
            return Mechanism.TCX
        return Mechanism.CLSACT

    def end_and_hook(self, direction: Direction, *, delays: bool, has_pod_side: bool) -> tuple[End, Hook]:
        """Return the end and the hook that see a pod's traffic of a direction.

        Packets that enter the pod leave its host-side interface, unless they are redirected past it.
        Packets can be delayed only where they leave an interface: for egress on the pod's own interface.
        """
        if direction is Direction.EGRESS:
            return (End.POD, Hook.EGRESS) if delays else (End.HOST, Hook.INGRESS)
        if has_pod_side and (self.bypasses or (self.redirects and not delays)):
            return End.POD, Hook.INGRESS
        return End.HOST, Hook.EGRESS

    @property
    def may_use_tcx(self) -> bool:
        """Whether limits may be attached by tcx."""
        return self.has_tcx and self.mode is not AttachMode.CLSACT
