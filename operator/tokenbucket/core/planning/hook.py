"""Translate the direction of a limit into a hook. Only this module does so."""

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
    """An interface in the network namespace of the node (inode 0), or of a pod (inode of its namespace)."""

    ifindex: int
    namespace: int = 0


@dataclass(frozen=True, slots=True, order=True)
class HookPoint:
    """A hook of one interface."""

    interface: Interface
    hook: Hook


def hook_of(direction: Direction, *, waits: bool) -> tuple[End, Hook]:
    """Return the end and the hook that see a pod's traffic of a direction.

    Ingress packets of a pod leave the host-side interface. A qdisc can queue packets only when they leave an
    interface. With ``waits``, egress packets are therefore limited on the pod-side interface.
    """
    if direction is Direction.INGRESS:
        return End.HOST, Hook.EGRESS
    return (End.POD, Hook.EGRESS) if waits else (End.HOST, Hook.INGRESS)


def device_hook(direction: Direction) -> Hook:
    """Return the hook of a device for its own traffic, named as the device sees it."""
    return Hook(direction.value)
