"""Compute the status of a policy from the reports of the agents.

The function is pure. The same reports and previous conditions give an equal document, so that the controller
writes only changes.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.status.explanation import degrades, fails
from tokenbucket.core.status.policy_conditions import conditions
from tokenbucket.core.status.summary import Agents, Entry, PolicyHead, Summary, in_number, summary_of

_LONGEST_WORDS = 512
_LONGEST_RATE = 64
_OVERRIDDEN = "overridden"
_PROBLEMS = 8
"""Maximum number of pods in a status, as in its schema."""
_DIRECTIONS = {direction.value for direction in Direction}


def policy_status(
    policy: PolicyHead,
    entries: Iterable[Entry],
    previous_conditions: Iterable[object],
    now: str,
    agents: Agents,
) -> dict[str, Any]:
    """Return the status of a TokenBucketPolicy.

    ``entries`` are the reports about the policy. ``now`` is an RFC 3339 time.
    """
    total = summary_of(policy, entries, agents)
    effective = {**policy.declared, **_effective(total)}
    pods, matched = total.reported, total.matched
    document = {
        "observedGeneration": policy.generation,
        "rates": {direction: _rate_of(total, direction, words) for direction, words in effective.items()},
        "effective": effective,
        "action": _actions(total),
        "pods": {
            "matched": matched,
            "programmed": pods.programmed,
            "degraded": pods.degraded,
            "failed": pods.failed,
            "exempt": pods.exempt,
            "summary": f"{pods.programmed}/{matched}",
        },
        "nodes": {
            "matched": sum(1 for entry in total.entries if entry.policy.pods.matched),
            "unavailable": len(total.dead),
        },
        "problems": _problems(total),
        "conditions": conditions(total, previous_conditions, now),
    }
    return {name: value for name, value in document.items() if value not in ({}, "", [])}


def _rate_of(total: Summary, direction: str, words: str) -> str:
    """Return the rate of a described limit, such as "100Mbit/s" of "100Mbit/s, burst 625kB".

    If other policies have precedence for this direction on all pods, return that instead.
    """
    overrides = (override for entry in total.current for override in entry.policy.overridden_by)
    overridden = sum(override.pods for override in overrides if override.direction == direction)
    return _OVERRIDDEN if 0 < total.matched <= overridden else words.split(",", 1)[0][:_LONGEST_RATE]


def _problems(total: Summary) -> list[dict[str, str]]:
    """Return the first pods that are not limited as declared, those without a limit first."""
    found = [
        (not fails(pod.reason), pod.name, entry.node.name, pod)
        for entry in total.of_generation
        if entry.alive and any(degrades(count.reason) for count in entry.policy.reasons)
        for pod in entry.node.report.pods
        if (pod.namespace, pod.policy) == (total.head.namespace, total.head.name)
        and degrades(pod.reason)
        and pod.direction in _DIRECTIONS
    ]
    problems = (
        {
            "pod": name,
            "node": node,
            "direction": pod.direction,
            "reason": pod.reason,
            "message": pod.message,
        }
        for _, name, node, pod in heapq.nsmallest(
            _PROBLEMS, found, key=lambda item: (*item[:3], item[3].direction)
        )
    )
    return [{name: text for name, text in problem.items() if text} for problem in problems]


def _effective(total: Summary) -> dict[str, str]:
    found = {direction.value: _most_common(total, direction.value) for direction in Direction}
    return {direction: words for direction, words in found.items() if words}


def _most_common(total: Summary, direction: str) -> str:
    pods: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for entry in total.of_generation:
        words = entry.policy.effective.get(direction)
        if words:
            pods[words] += entry.policy.pods.programmed
            nodes[words] += 1
    if not nodes:
        return ""
    common = min(nodes, key=lambda words: (-pods[words], -nodes[words], words))
    others = nodes.total() - nodes[common]
    suffix = f" (differs on {in_number(others, 'node')})" if others else ""
    return common[: _LONGEST_WORDS - len(suffix)] + suffix


def _actions(total: Summary) -> str:
    pods: Counter[str] = Counter()
    for entry in total.of_generation:
        for action in filter(None, entry.policy.action.values()):
            pods[action] += entry.policy.pods.programmed
    return ", ".join(sorted(pods, key=lambda action: (-pods[action], action)))[:_LONGEST_WORDS]
