"""What became of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.desired import Deviation, InForce


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass did. Not ``complete``: something failed that may work when tried again."""

    actions: int
    complete: bool
    findings: tuple[Deviation, ...]
    in_force: Mapping[SlotKey, InForce]
    """The limits that are attached wherever they should be."""
    fq: bool
    """Whether the kernel can hold packets back."""
    waits: bool = False
    """Something is left to do that nothing but time makes possible, and that no event will tell of."""
