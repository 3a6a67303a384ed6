"""Describe foreign programs at the hooks of an interface."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from tokenbucket.core.planning.hook import Hook

_LISTED = 3
"""Maximum number of programs in a message."""


class Mechanism(enum.StrEnum):
    """How a program is attached. The kernel runs XDP before tcx, and tcx before tc filters."""

    XDP = "XDP"
    TCX = "tcx"
    FILTER = "tc filter"


@dataclass(frozen=True, slots=True, order=True)
class ForeignProgram:
    """A program that does not belong to tokenbucket. An id of 0 is unknown or missing."""

    interface: str
    hook: Hook
    mechanism: Mechanism
    name: str = ""
    program_id: int = 0
    link_id: int = 0

    def __str__(self) -> str:
        ids = [f"program {self.program_id}"] if self.program_id else []
        ids += [f"link {self.link_id}"] if self.link_id else []
        named = self.name or "a program without a name"
        return f"{named} ({', '.join([self.mechanism, *ids])}) at {self.interface} {self.hook}"


def list_programs(programs: Iterable[ForeignProgram]) -> str:
    """Return a text with the first programs and the number of the others."""
    ordered = sorted(set(programs))
    named = ", ".join(map(str, ordered[:_LISTED]))
    more = len(ordered) - _LISTED
    return f"{named} and {more} more" if more > 0 else named
