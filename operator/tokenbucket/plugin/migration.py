"""Write policies that are equivalent to annotations.

A policy selects pods of other workloads only if these have the same limits. Otherwise no policy is written,
and a note names the pods: a migration must not limit a pod that was not limited.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.core.api.parse import API_VERSION, POLICY, parse_policy
from tokenbucket.core.api.policy import Direction, Limit
from tokenbucket.errors import SpecError
from tokenbucket.plugin.annotated import Cluster, Subject, without_equivalent
from tokenbucket.plugin.existing_policies import ExistingPolicies

_DECIMAL = (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3))
_BINARY = (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
_MOST_VALUES = 64
"""Values of one requirement of a selector, as in the schema."""
_NAMED = 5
"""Maximum number of objects in a note."""
_CALICO_BURSTS = (2**29, 5)
"""Calico's defaults in bytes and in packets."""

Limits = Mapping[Direction, Limit]


@dataclass(slots=True)
class Migration:
    """Policies as documents, and notes about annotations that have no equivalent."""

    policies: list[dict[str, Any]] = field(default_factory=list)
    sources: list[tuple[Subject, ...]] = field(default_factory=list)
    """The workloads of each policy."""
    notes: list[str] = field(default_factory=list)
    existing: ExistingPolicies = field(default_factory=ExistingPolicies)

    def add(self, subjects: Sequence[Subject], selector: Mapping[str, Any], pods: Iterable[Subject]) -> None:
        """Add the policy of workloads with the same limits, and notes about other policies of their pods."""
        first = subjects[0]
        written = {each["metadata"]["name"] for each in self.policies if _namespace(each) == first.namespace}
        taken = written | self.existing.names(first.namespace)
        wanted = first.name if len(subjects) == 1 else _name_of(first.limits)
        names = (f"{wanted[:245]}-{number}" if number else wanted for number in range(len(taken) + 1))
        name = next(each for each in names if each not in taken)
        name = self.existing.same_as(_policy(first, name, selector)) or name
        policy = _policy(first, name, selector)
        self.policies.append(policy)
        self.sources.append(tuple(subjects))
        self.notes += self.existing.notes(policy, [each.labels for each in (*subjects, *pods)])


def migrate(
    cluster: Cluster, wanted: frozenset[str] | None = None, existing: ExistingPolicies | None = None
) -> Migration:
    """Return the policies. ``wanted`` are the pods to migrate, as NAMESPACE/NAME; ``None`` means all."""
    result, everything = Migration(existing=existing or ExistingPolicies()), cluster.subjects()
    fitting: dict[tuple[str, str], list[Subject]] = defaultdict(list)
    for subject, pods in everything:
        if wanted is not None and not any(f"{pod.namespace}/{pod.name}" in wanted for pod in pods):
            continue
        if _has_policy(subject, pods, everything, result.notes):
            keys = sorted(subject.selector.get("matchLabels", ()))
            fitting[subject.namespace, repr((sorted(subject.limits.items()), keys))].append(subject)
    groups = [group for subjects in fitting.values() for group in _groups(subjects)]
    for subjects, selector in sorted(groups, key=lambda group: (group[0][0].namespace, group[0][0].name)):
        members = (pod for subject, pods in everything if subject in subjects for pod in pods)
        result.add(subjects, selector, members)
    return result


def _has_policy(
    subject: Subject,
    pods: Sequence[Subject],
    everything: Sequence[tuple[Subject, tuple[Subject, ...]]],
    notes: list[str],
) -> bool:
    """Return whether a policy can replace the annotations of a workload. Append notes about them."""
    notes += [f"{subject}: {text}; it has no equivalent" for text in without_equivalent(subject)]
    if subject.annotated:
        notes += [f"{subject}: {text}" for text in subject.annotated.problems.values()]
    different = [pod.name for pod in pods if pod.limits != subject.limits]
    if different and subject.kind != "Pod":
        text = "differ from the template in their annotations; a policy gives all pods the same limits"
        notes.append(f"{subject}: pods {_list(different)} {text}")
    if not subject.limits:
        return False
    if subject.host_network:
        notes.append(f"{subject}: uses the network of the node, to which limits do not apply; no policy")
        return False
    if why_not := _why_not(subject, everything):
        notes.append(f"{subject}: {why_not}")
        return False
    bursts = {
        size for each in subject.limits.values() for size in (each.burst.size_bytes, each.burst.packets)
    }
    if not bursts.isdisjoint(_CALICO_BURSTS):
        text = "bursts of 512Mi or 5 packets are Calico's defaults; remove them to use those of tokenbucket"
        notes.append(f"{subject}: {text}")
    return True


def _why_not(subject: Subject, everything: Sequence[tuple[Subject, tuple[Subject, ...]]]) -> str:
    """Return why no policy can select exactly the pods of a workload, or an empty text."""
    if not subject.selector:
        return "has no label that selects it; add a label to its pods"
    try:
        policy = parse_policy(_policy(subject, "a", subject.selector))
    except SpecError as error:
        return f"its selector is not valid in a policy: {'; '.join(map(str, error.problems))}"
    others = [
        (other, each)
        for other, pods in everything
        if other is not subject and other.namespace == subject.namespace
        for each in (other, *pods)
    ]
    taken = [
        other.name
        for other, each in others
        if each.limits != subject.limits and not each.host_network and policy.selector.matches(each.labels)
    ]
    if not taken:
        return ""
    return f"its labels also select {_list(dict.fromkeys(taken))}, with other limits; add a label to its pods"


def _groups(subjects: Sequence[Subject]) -> Iterable[tuple[Sequence[Subject], Mapping[str, Any]]]:
    """Yield workloads with the same limits, with a selector: one if their labels differ only in one key."""
    if 1 < len(subjects) <= _MOST_VALUES and all(set(each.selector) == {"matchLabels"} for each in subjects):
        labels = [each.selector["matchLabels"] for each in subjects]
        keys = {key: {each.get(key) for each in labels} for each in labels for key in each}
        varying = [key for key, values in keys.items() if len(values) > 1]
        if len(varying) == 1 and None not in keys[varying[0]]:
            [key] = varying
            same = {name: value for name, value in labels[0].items() if name != key}
            expression = {"key": key, "operator": "In", "values": sorted(keys[key])}
            selector = {"matchLabels": same} if same else {}
            return [(subjects, {**selector, "matchExpressions": [expression]})]
    return [([each], each.selector) for each in subjects]


def _policy(subject: Subject, name: str, selector: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": POLICY,
        "metadata": {"name": name, "namespace": subject.namespace},
        "spec": {
            "podSelector": dict(selector),
            **{direction.value: _limit(limit) for direction, limit in subject.limits.items()},
        },
    }


def _limit(limit: Limit) -> dict[str, Any]:
    rate, burst = limit.rate, limit.burst
    fields = {
        "rate": {"bits": _decimal(rate.bits_per_s), "packets": rate.packets_per_s},
        "burst": {"bytes": _with_suffix(burst.size_bytes, _BINARY + _DECIMAL), "packets": burst.packets},
    }
    given = {name: {key: value for key, value in each.items() if value} for name, each in fields.items()}
    return {name: each for name, each in given.items() if each}


def _decimal(number: int | None) -> str | int | None:
    return _with_suffix(number, _DECIMAL)


def _with_suffix(number: int | None, suffixes: Iterable[tuple[str, int]]) -> str | int | None:
    """Return a number with the largest suffix that keeps it exact."""
    fitting = (f"{number // size}{suffix}" for suffix, size in suffixes if number and number % size == 0)
    return next(fitting, number)


def _name_of(limits: Limits) -> str:
    """Return a name such as "ingress-20m-egress-10m"."""
    parts = []
    for direction, limit in limits.items():
        rate = _decimal(limit.rate.bits_per_s) or f"{limit.rate.packets_per_s}-packets"
        parts += [direction.value, str(rate).lower()]
    return "-".join(parts)


def _namespace(policy: Mapping[str, Any]) -> str:
    return str(policy["metadata"]["namespace"])


def _list(names: Iterable[str]) -> str:
    found = list(names)
    more = len(found) - _NAMED
    return ", ".join(found[:_NAMED]) + (f" and {more} more" if more > 0 else "")
