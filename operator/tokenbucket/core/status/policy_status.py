"""Compute the status of a policy from the reports of the agents.

The function is pure. The same reports and previous conditions give an equal document, so that the controller
writes only changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.status.conditions import conditions
from tokenbucket.core.status.summary import Agents, Entry, PolicyHead, Summary, in_number, summary_of

_LONGEST_WORDS = 512
_LONGEST_RATE = 64


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
        "rates": {direction: _rate_of(words) for direction, words in effective.items()},
        "effective": effective,
        "action": _actions(total),
        "pods": {
            "matched": matched,
            "programmed": pods.programmed,
            "degraded": pods.degraded,
            "failed": pods.failed,
            "summary": f"{pods.programmed}/{matched}",
        },
        "nodes": {
            "matched": sum(1 for entry in total.entries if entry.policy.pods.matched),
            "unavailable": len(total.dead),
        },
        "conditions": conditions(total, previous_conditions, now),
    }
    return {name: value for name, value in document.items() if value not in ({}, "")}


def _rate_of(words: str) -> str:
    """Return the rate of a described limit, such as "100Mbit/s" of "100Mbit/s, burst 625kB"."""
    return words.split(",", 1)[0][:_LONGEST_RATE]


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
