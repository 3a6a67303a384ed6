"""How often the status of a policy is written.

Every agent watches the policies, so one write is one event on every node. The more nodes there are, the rarer
each policy's writes: pods that come and go somewhere in a large cluster change its counts all the time.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

EVENTS_PER_S = 100.0
"""What one policy may cost the API server."""
LONGEST_S = 30.0


@dataclass(slots=True)
class WriteThrottle:
    """Times in seconds of one monotonic clock."""

    _written: dict[Hashable, float] = field(default_factory=dict)

    def wait_s(self, policy: Hashable, nodes: int, now: float) -> float:
        """How long the next write of this policy's status is to wait; 0 when it may be written now."""
        if policy not in self._written:
            return 0.0
        return max(0.0, self._written[policy] + min(nodes / EVENTS_PER_S, LONGEST_S) - now)

    def wrote(self, policy: Hashable, now: float) -> None:
        """It has been written."""
        self._written[policy] = now

    def keep(self, policies: Collection[Hashable]) -> None:
        """Forgets all others, which are no more."""
        self._written = {policy: at for policy, at in self._written.items() if policy in policies}
