"""Decide which policy applies if several policies select a pod.

Policies in Enforce mode rank before policies in Observe mode, so that a test never removes a limit. Then the
highest priority wins, then the oldest policy, then the first name. Annotations of a pod have the lowest rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Direction, Mode, Policy


def rank(policy: Policy) -> tuple[bool, int, bool, str, str]:
    """Return a sort key; the winner sorts first. A policy without creation time counts as the youngest."""
    observes = policy.mode is Mode.OBSERVE
    return (observes, -policy.priority, not policy.created, policy.created, policy.name)


def advantage(winner: Policy, other: Policy) -> str:
    """Return why a policy ranks before another one, such as "priority 10 is higher than 0"."""
    texts = (
        "a policy in Enforce mode ranks before one in Observe mode",
        f"priority {winner.priority} is higher than {other.priority}",
        "it has a creation time, and the other policy has none",
        f"it is older, created {winner.created} and not {other.created}",
        "both are equally old, and its name sorts first",
    )
    criteria = zip(rank(winner), rank(other), texts, strict=True)
    return next((text for first, second, text in criteria if first != second), "")


class Winners:
    """Finds the policies that apply to pods. The policies are sorted once for all pods."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._ranked: dict[str, list[Policy]] = defaultdict(list)
        for policy in sorted(policies, key=rank):
            if policy.mode is not Mode.OFF:
                self._ranked[policy.namespace].append(policy)

    def of(self, pod: Pod) -> dict[Direction, Policy]:
        """Return the policy for each direction of a pod. Omit directions without a policy."""
        winners: dict[Direction, Policy] = {}
        for policy in self._ranked.get(pod.id.namespace, ()):
            missing = policy.limits.keys() - winners.keys()
            if missing and policy.selector.matches(pod.labels):
                winners |= dict.fromkeys(missing, policy)
        if pod.annotated:
            policy = pod.annotated.policy
            winners |= dict.fromkeys(policy.limits.keys() - winners.keys(), policy)
        return winners
