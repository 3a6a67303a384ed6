"""Find the reasons in the reports about a policy, and explain them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.core.status.summary import Entry, in_number

_KNOWN = {str(reason): reason for reason in Reason}
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII)
"""The format that the schema allows. An agent of another version can report other texts."""
_NAMED = 3
"""Maximum number of reasons in a message."""


def fails(reason: str) -> bool:
    """Return whether a reason means that a limit failed. An unknown reason of a newer agent does."""
    return reason not in _KNOWN or _KNOWN[reason].effect is Effect.FAILED


def waits(reason: str) -> bool:
    """Return whether a reason means that a limit is enforced soon."""
    return reason in _KNOWN and _KNOWN[reason].effect is Effect.PENDING


def degrades(reason: str) -> bool:
    """Return whether a reason means that a pod is not limited as declared, or not at all."""
    return reason not in _KNOWN or _KNOWN[reason].effect in {Effect.DEGRADED, Effect.FAILED}


@dataclass(slots=True)
class Found:
    """One reason with its pods, nodes and messages, over all nodes."""

    reason: str
    pods: int = 0
    nodes: set[str] = field(default_factory=set)
    messages: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        message = min(self.messages, key=lambda text: (-self.messages[text], text))
        where = f"{in_number(self.pods, 'pod')} on {in_number(len(self.nodes), 'node')}"
        return f"{self.reason} on {where}{f' ({message})' if message else ''}"


def find_reasons(entries: Iterable[Entry], wanted: Callable[[str], bool]) -> list[Found]:
    """Return the reasons, sorted by the number of pods in descending order."""
    found: dict[str, Found] = {}
    for entry in entries:
        for count in entry.policy.reasons:
            if count.pods > 0 and _REASON.fullmatch(count.reason) and wanted(count.reason):
                reason = found.setdefault(count.reason, Found(count.reason))
                reason.pods += count.pods
                reason.nodes.add(entry.node.name)
                reason.messages[count.message] += count.pods
    return sorted(found.values(), key=lambda reason: (-reason.pods, reason.reason))


def explain(found: Sequence[Found]) -> str:
    """Return the reasons as the end of a message. Empty without reasons."""
    more = f"; {in_number(len(found) - _NAMED, 'more reason')}" if len(found) > _NAMED else ""
    return f": {'; '.join(map(str, found[:_NAMED]))}{more}" if found else ""
