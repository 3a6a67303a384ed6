"""Limit the writes of the status of a policy.

Every agent watches the policies, so one write causes one event on every node. The interval between writes
grows with the number of nodes, because pods change all the time in a large cluster.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

EVENTS_PER_S = 100.0
"""Maximum rate of events of one policy."""
LONGEST_S = 30.0


@dataclass(slots=True)
class WriteThrottle:
    """Enforce a minimum interval. Times are seconds of a monotonic clock."""

    _written: dict[Hashable, float] = field(default_factory=dict)

    def wait_s(self, policy: Hashable, nodes: int, now: float) -> float:
        """Return the time to wait before the next write in seconds, or 0."""
        if policy not in self._written:
            return 0.0
        return max(0.0, self._written[policy] + min(nodes / EVENTS_PER_S, LONGEST_S) - now)

    def wrote(self, policy: Hashable, now: float) -> None:
        """Record a write."""
        self._written[policy] = now

    def keep(self, policies: Collection[Hashable]) -> None:
        """Forget all other policies, which no longer exist."""
        self._written = {policy: at for policy, at in self._written.items() if policy in policies}
