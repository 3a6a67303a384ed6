"""The result of a check of one node: which limits would run there, with causes and next steps."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

VERSION = 1


class Ability(enum.StrEnum):
    """The best limit that runs on a node."""

    DELAY = "Delay"
    DROP = "Drop"
    NONE = "impossible"
    UNKNOWN = "unknown"


class State(enum.StrEnum):
    """The result of one part of a check."""

    OK = "ok"
    NOTE = "note"
    """No limit depends on it, but it explains differences."""
    NO_DELAY = "no Delay"
    NO_LIMIT = "no limit"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one part of a check."""

    part: str
    state: State
    detail: str
    action: str = ""
    """The next step; empty if none is necessary."""

    def __str__(self) -> str:
        return f"{self.part}: {self.detail}" + (f"; {self.action}" if self.action else "")


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """The results of one node."""

    node: str
    findings: tuple[Finding, ...]

    @property
    def ability(self) -> Ability:
        """Return the best limit that runs on the node."""
        states = {finding.state for finding in self.findings}
        if State.NO_LIMIT in states:
            return Ability.NONE
        if State.UNKNOWN in states or not states:
            return Ability.UNKNOWN
        return Ability.DROP if State.NO_DELAY in states else Ability.DELAY

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Return the findings with a next step, the most important first."""
        order = [State.NO_LIMIT, State.UNKNOWN, State.NO_DELAY, State.NOTE, State.OK]
        found = (finding for finding in self.findings if finding.action)
        return tuple(sorted(found, key=lambda finding: order.index(finding.state)))

    def as_document(self) -> dict[str, Any]:
        """Return the JSON document."""
        findings = [asdict(finding) for finding in self.findings]
        return {"version": VERSION, "node": self.node, "result": self.ability.value, "findings": findings}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the value of a document. Raises KeyError, TypeError or ValueError if it is none."""
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']} is not {VERSION}")
        findings = (
            Finding(str(each["part"]), State(each["state"]), str(each["detail"]), str(each["action"]))
            for each in document["findings"]
        )
        return cls(str(document["node"]), tuple(findings))
