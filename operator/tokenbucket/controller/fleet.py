"""Find the agents that do not know a policy yet, or that do not support it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from tokenbucket.core.api.node_report import PolicyReport
from tokenbucket.core.api.policy import ExceedAction, Mode, Queue
from tokenbucket.core.status.summary import PolicyHead, ReportedNode

_UNLISTED = frozenset({*ExceedAction, *Mode, Queue.FIFO})
"""The parts of the API that an agent supports whose version lists none."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The agents with a recent report."""

    versions: tuple[tuple[int, str], ...]
    """The version of policies that each agent has used, in ascending order, and its node."""
    features: tuple[tuple[frozenset[str], str], ...]
    """The parts of the API that each agent supports, and its node."""
    cut: tuple[tuple[tuple[str, str], str], ...]
    """The last policy of each report that has no room for all policies, and its node."""
    common: frozenset[str] | None
    """The parts of the API that all agents support. ``None`` without agents."""

    @classmethod
    def of(cls, reports: Iterable[ReportedNode]) -> Self:
        """Return the agents. A report without a version proves that its agent has used none."""
        reports = list(reports)
        versions = [(node.report.sync.policies_version, node.name) for node in reports]
        features = [(frozenset(node.report.agent.features) or _UNLISTED, node.name) for node in reports]
        cut = [(_last(node.report.policies), node.name) for node in reports if node.report.policies_omitted]
        return cls(
            tuple(sorted(versions)),
            tuple(features),
            tuple(cut),
            frozenset.intersection(*(each for each, _ in features)) if features else None,
        )

    def behind(self, required: int) -> list[str]:
        """Return the nodes whose agents have not used this version."""
        return [name for _, name in self.versions[: bisect_left(self.versions, (required, ""))]]

    def omitting(self, policy: PolicyHead) -> list[str]:
        """Return the nodes whose reports have no room for the policy."""
        return [name for last, name in self.cut if last < (policy.namespace, policy.name)]

    def unsupported(self, features: frozenset[str]) -> tuple[str, ...]:
        """Return the nodes whose agents do not support one of these parts of the API."""
        if self.common is None or features <= self.common:
            return ()
        return tuple(sorted(name for supported, name in self.features if not features <= supported))


def _last(policies: Sequence[PolicyReport]) -> tuple[str, str]:
    """Return the namespace and the name of the last policy of a report. A false report can have none."""
    return (policies[-1].namespace, policies[-1].name) if policies else ("", "")
