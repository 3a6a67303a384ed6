"""Which policy wins where several select a pod.

One that enforces before one that only observes, so that a trial never lifts a limit; then the highest
priority, then the oldest, then by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Direction, Mode, Policy


def rank(policy: Policy) -> tuple[bool, int, bool, str, str]:
    """Sorts the winner first. A policy without a time of creation is younger than any with one."""
    observes = policy.mode is Mode.OBSERVE
    return (observes, -policy.priority, not policy.created, policy.created, policy.name)


class Winners:
    """Policies of all namespaces, ready to be asked for many pods."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._ranked: dict[str, list[Policy]] = defaultdict(list)
        for policy in sorted(policies, key=rank):
            if policy.mode is not Mode.OFF:
                self._ranked[policy.namespace].append(policy)

    def of(self, pod: Pod) -> dict[Direction, Policy]:
        """Return the policy that limits each direction of a pod; a direction that none limits is left out."""
        winners: dict[Direction, Policy] = {}
        for policy in self._ranked.get(pod.id.namespace, ()):
            missing = policy.limits.keys() - winners.keys()
            if missing and policy.selector.matches(pod.labels):
                winners |= dict.fromkeys(missing, policy)
        return winners
