"""Compare the policies of a migration with those that the cluster has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tokenbucket.core.api.parse import API_VERSION, POLICY, parse_policy
from tokenbucket.core.api.policy import Mode, Policy
from tokenbucket.core.api.protection import protection_error
from tokenbucket.core.planning.precedence import advantage, rank
from tokenbucket.errors import SpecError

Document = Mapping[str, Any]
DEFAULT_PROTECTED = frozenset({"kube-system"})
"""The default of the chart value ``protectedNamespaces``, to which the chart adds its own namespace."""


@dataclass(frozen=True, slots=True)
class ExistingPolicies:
    """The policies of the cluster, and the protected namespaces."""

    _policies: Mapping[tuple[str, str], Policy | None] = field(default_factory=dict)
    """By namespace and name. ``None`` if a policy is not valid."""
    _protected: frozenset[str] = DEFAULT_PROTECTED

    @classmethod
    def of(cls, documents: Iterable[Document], release_namespace: str = "") -> Self:
        """Return the policies of documents."""
        found = {
            (each["metadata"]["namespace"], each["metadata"]["name"]): _parsed(each) for each in documents
        }
        return cls(found, DEFAULT_PROTECTED | {release_namespace})

    def names(self, namespace: str) -> set[str]:
        """Return the names of the policies of a namespace, which an apply would replace."""
        return {name for place, name in self._policies if place == namespace}

    def same_as(self, document: Document) -> str | None:
        """Return the name of a policy that declares the same, or None."""
        policy = parse_policy(document)
        others = filter(None, self._policies.values())
        return next((other.name for other in others if _is_same(other, policy)), None)

    def notes(self, document: Document, labels: Iterable[Mapping[str, str]]) -> Iterator[str]:
        """Yield what keeps a policy from limiting pods with these labels, and what it overrides."""
        policy, labels = parse_policy(document), list(labels)
        if error := protection_error(document["metadata"], self._protected):
            yield f"policy {policy}: {error}; without it, the policy is invalid and limits no pod"
        for other in self._policies.values():
            if other and other.namespace == policy.namespace and not _is_same(other, policy):
                selects = other.mode is not Mode.OFF and any(map(other.selector.matches, labels))
                common = [each for each in policy.limits if each in other.limits]
                if selects and common:
                    yield _rivalry(policy, other, " and ".join(common))


def _rivalry(policy: Policy, other: Policy, directions: str) -> str:
    winner, loser = sorted((policy, other), key=rank)
    outcome = "has no effect there" if winner is other else f"overrides policy {other.name} there"
    why = f"policy {winner.name} ranks higher: {advantage(winner, loser)}"
    text = f"policy {other.name} also limits {directions} of its pods; the new one {outcome}, because {why}"
    return f"policy {policy}: {text}"


def _is_same(one: Policy, other: Policy) -> bool:
    """Return whether both policies declare the same under any names."""
    return _declares(one) == _declares(other)


def _declares(policy: Policy) -> tuple[Any, ...]:
    return policy.namespace, policy.selector, policy.limits, policy.mode, policy.priority


def _parsed(document: Document) -> Policy | None:
    try:
        return parse_policy({**document, "apiVersion": API_VERSION, "kind": POLICY, "status": None})
    except SpecError:
        return None
