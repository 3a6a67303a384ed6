"""The policies of a namespace, in relation to the labels of one pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Mode, Policy
from tokenbucket.core.api.protection import protection_error
from tokenbucket.core.api.selector import Operator, Requirement, Selector
from tokenbucket.errors import SpecError

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyView:
    """One policy object, valid or not."""

    name: str
    policy: Policy | None
    """``None`` if this version rejects it."""
    selector: Selector | None
    """``None`` if even the selector is invalid."""
    rejected: str
    """Why the policy is never enforced: it is invalid, or its namespace is protected. Otherwise empty."""
    protected: bool
    """Whether the controller rejects it because its namespace is protected."""
    denied: str
    """The message of the condition Accepted, if it is False for this generation."""
    accepted: bool
    """Whether the condition Accepted is True for this generation."""
    problems: tuple[Document, ...]
    """``status.problems``: pods that are not limited as declared."""

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Return whether the policy selects a pod with these labels."""
        return self.selector is not None and self.selector.matches(labels)

    @property
    def is_unreadable(self) -> bool:
        """Return whether the controller accepts the policy, and this command does not."""
        return self.policy is None and self.accepted

    @property
    def applies(self) -> bool:
        """Return whether the policy can be enforced: it is accepted, and not off."""
        return self.policy is not None and not self.rejected and self.policy.mode is not Mode.OFF


def view(document: Document) -> PolicyView:
    """Return the view of a TokenBucketPolicy."""
    metadata, status = document.get("metadata") or {}, document.get("status") or {}
    document = {
        **document,
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "status": None,
    }
    accepted, denied = _accepted(metadata, status)
    try:
        policy, error = parse_policy(document), ""
        selector: Selector | None = policy.selector
    except SpecError as found:
        policy, error = None, "; ".join(map(str, found.problems))
        selector = _selector_alone(document)
    protected = denied == protection_error(metadata, {str(metadata.get("namespace"))}) != ""
    problems = tuple(each for each in status.get("problems") or () if isinstance(each, Mapping))
    rejected = error or (denied if protected else "")
    name = str(metadata.get("name"))
    return PolicyView(name, policy, selector, rejected, protected, denied, accepted, problems)


def _selector_alone(document: Document) -> Selector | None:
    """Return the selector of a policy whose other fields are invalid."""
    selector = (document.get("spec") or {}).get("podSelector")
    try:
        spec = {"podSelector": selector, "ingress": {"rate": {"bits": "1M"}}}
        return parse_policy({**document, "spec": spec}).selector
    except SpecError:
        return None


def _accepted(metadata: Document, status: Document) -> tuple[bool, str]:
    """Return whether the controller accepts this generation, and why not."""
    for condition in status.get("conditions") or ():
        current = condition.get("observedGeneration") == metadata.get("generation")
        if condition.get("type") == "Accepted" and current:
            is_true = condition.get("status") == "True"
            return is_true, "" if is_true else str(condition.get("message") or "")
    return False, ""


@dataclass(frozen=True, slots=True)
class Miss:
    """A policy that does not select a pod."""

    policy: str
    unmet: tuple[Requirement, ...]
    met: int

    def explain(self, labels: Mapping[str, str]) -> str:
        """Return a text such as "policy web requires app=web; the pod has app=webs"."""
        required = ", ".join(sorted(map(in_words, self.unmet)))
        found = ", ".join(sorted({_label(each.key, labels) for each in self.unmet}))
        return f"policy {self.policy} requires {required}; the pod has {found}"


def nearest_miss(policies: Iterable[PolicyView], labels: Mapping[str, str]) -> Miss | None:
    """Return the policy whose selector is closest to selecting the labels."""
    misses = []
    for policy in policies:
        if policy.selector is not None and not policy.selects(labels):
            unmet = tuple(each for each in policy.selector.requirements if not each.holds(labels))
            misses.append(Miss(policy.name, unmet, len(policy.selector.requirements) - len(unmet)))
    return min(misses, key=lambda miss: (len(miss.unmet), -miss.met, miss.policy), default=None)


def in_words(requirement: Requirement) -> str:
    """Return a requirement as in a label selector of kubectl."""
    values = ", ".join(sorted(requirement.values))
    match requirement.operator:
        case Operator.IN if len(requirement.values) == 1:
            return f"{requirement.key}={values}"
        case Operator.IN:
            return f"{requirement.key} in ({values})"
        case Operator.NOT_IN:
            return f"{requirement.key} notin ({values})"
        case Operator.EXISTS:
            return f"the label {requirement.key}"
        case Operator.DOES_NOT_EXIST:
            return f"no label {requirement.key}"


def _label(key: str, labels: Mapping[str, str]) -> str:
    return f"{key}={labels[key]}" if key in labels else f"no label {key}"
