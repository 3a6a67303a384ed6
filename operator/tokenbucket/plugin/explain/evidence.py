"""Everything that the API holds about one pod, as values. Missing rights leave gaps, which it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenbucket.core.api.annotations import NAME as ANNOTATIONS
from tokenbucket.core.api.enforcement import Enforcement
from tokenbucket.core.api.node_report import NodeReport
from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.plugin.explain.policies import PolicyView

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AgentPod:
    """One agent pod of the node."""

    name: str
    bound: bool
    """Whether the scheduler has bound it to the node."""
    ready: bool
    problem: str
    """Why it is not bound or not ready, as the API shows it."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """The node of the pod."""

    name: str
    addresses: tuple[str, ...]
    why_no_agent: str
    """Why no agent can run there; empty if one can."""


@dataclass(frozen=True, slots=True)
class ReportView:
    """The TokenBucketNode of the node."""

    report: NodeReport
    condition: Mapping[str, str]
    """The condition AgentReady; empty if the controller has not written it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The objects about one pod. ``None`` means that an object could not be read, see ``gaps``."""

    pod: Pod
    node_name: str
    created: str
    policies: tuple[PolicyView, ...]
    node: NodeView | None = None
    node_exists: bool = True
    report: ReportView | None = None
    report_exists: bool = True
    agents: tuple[AgentPod, ...] | None = None
    enforcement: Enforcement | None = None
    live: Document | None = None
    """The part of the live answer about the pod."""
    live_problem: str = ""
    """Why there are no live figures."""
    gaps: tuple[str, ...] = ()
    """The missing rights."""
    now: float = 0.0

    @property
    def reads_annotations(self) -> bool | None:
        """Return whether the agent of the pod reads annotations, or None if no answer of it shows this."""
        if self.report:
            return self.report.report.annotations is not None
        if self.live is None:
            return None
        policies = (self.live.get("policies") or {}).values()
        reasons = (each.get("reason") for each in self.live_reasons)
        return ANNOTATIONS in policies or Reason.INVALID_ANNOTATION in reasons

    @property
    def subject(self) -> Pod:
        """Return the pod as its agent sees it: without annotations if the agent does not read them."""
        return replace(self.pod, annotated=None) if self.reads_annotations is False else self.pod

    @property
    def enforces_now(self) -> bool:
        """Return whether the agent answers, and the enforcement mode of its node is Enforce."""
        return self.live is not None and self.live.get("enforcement") == Mode.ENFORCE.value

    @property
    def live_reasons(self) -> list[Document]:
        """Return the deviations that the agent names now."""
        return list((self.live or {}).get("reasons") or ())

    def live_limit(self, direction: str) -> Document | None:
        """Return the live state of the limit of one direction."""
        found: Sequence[Document] = (self.live or {}).get("limits") or ()
        return next((limit for limit in found if limit.get("direction") == direction), None)
