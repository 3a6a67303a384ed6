"""Where the program runs. The one place where a direction becomes a hook."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tokenbucket.core.policy import Direction


class Hook(enum.StrEnum):
    """The two hooks of clsact, as the interface sees them."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, order=True)
class HookPoint:
    """A hook of one interface of the node's network namespace."""

    ifindex: int
    hook: Hook


def host_side_hook(direction: Direction) -> Hook:
    """The hook of the host-side veth that sees a pod's traffic: what enters the pod leaves the veth."""
    return Hook.EGRESS if direction is Direction.INGRESS else Hook.INGRESS


def device_hook(direction: Direction) -> Hook:
    """The hook of a device for its own traffic, named as the device sees it."""
    return Hook(direction.value)
