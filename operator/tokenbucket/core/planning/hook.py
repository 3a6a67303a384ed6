"""Where the program runs. The one place where a direction becomes a hook."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tokenbucket.core.api.policy import Direction


class Hook(enum.StrEnum):
    """The two hooks of clsact, as the interface sees them."""

    INGRESS = "ingress"
    EGRESS = "egress"


class End(enum.Enum):
    """The two interfaces of a pod's veth pair."""

    HOST = "host"
    POD = "pod"


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """An interface of the node's network namespace or, where an inode is given, of a pod's."""

    ifindex: int
    namespace: int = 0


@dataclass(frozen=True, slots=True, order=True)
class HookPoint:
    """A hook of one interface."""

    interface: Interface
    hook: Hook


def hook_of(direction: Direction, *, waits: bool) -> tuple[End, Hook]:
    """Return the end and the hook that see a pod's traffic of a direction.

    What enters the pod leaves the host-side veth. Packets can wait only where they leave an interface, so
    where what the pod sends is to wait, that is the pod's own.
    """
    if direction is Direction.INGRESS:
        return End.HOST, Hook.EGRESS
    return (End.POD, Hook.EGRESS) if waits else (End.HOST, Hook.INGRESS)


def device_hook(direction: Direction) -> Hook:
    """Return the hook of a device for its own traffic, named as the device sees it."""
    return Hook(direction.value)
