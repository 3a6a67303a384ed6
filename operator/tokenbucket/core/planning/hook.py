"""Define where a program runs: interface, hook and mechanism."""

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


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """An interface in the network namespace of the node (inode 0), or of a pod (inode of its namespace)."""

    ifindex: int
    namespace: int = 0


@dataclass(frozen=True, slots=True, order=True)
class HookPoint:
    """A hook of one interface, and the mechanism by which tokenbucket's program is there."""

    interface: Interface
    hook: Hook
    mechanism: Mechanism = Mechanism.CLSACT


def device_hook(direction: Direction) -> Hook:
    """Return the hook of an interface for its own traffic, named as the interface sees it."""
    return Hook(direction.value)
