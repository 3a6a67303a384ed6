"""Describe foreign programs at the hooks of an interface."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tokenbucket.core.planning.attachment import Hook, Mechanism

_LISTED = 3
"""Maximum number of programs in a message."""
_REPORTED = 16
"""Maximum number of programs in a report."""


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
    """Return a text with the most frequent programs and the number of the others."""
    ordered = _by_frequency(programs)
    named = ", ".join(map(_describe, ordered[:_LISTED]))
    more = len(ordered) - _LISTED
    return f"{named} and {more} more" if more > 0 else named


def most_frequent(programs: Iterable[ForeignProgram]) -> tuple[str, ...]:
    """Return a text for each of the most frequent programs."""
    return tuple(map(_describe, _by_frequency(programs)[:_REPORTED]))


def _by_frequency(programs: Iterable[ForeignProgram]) -> list[list[ForeignProgram]]:
    """Return lists of programs with the same name, mechanism and hook, the longest first."""
    places: dict[tuple[str, Mechanism, Hook], list[ForeignProgram]] = defaultdict(list)
    for program in sorted(set(programs)):
        places[program.name, program.mechanism, program.hook].append(program)
    return sorted(places.values(), key=len, reverse=True)


def _describe(same: list[ForeignProgram]) -> str:
    """Return a text for programs of one name, mechanism and hook."""
    first, *others = same
    if not others:
        return str(first)
    named = first.name or "programs without a name"
    return f"{named} ({first.mechanism}) at the {first.hook} of {len(same)} interfaces"
