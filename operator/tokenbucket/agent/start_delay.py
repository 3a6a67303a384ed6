"""Delay the first requests of an agent at random, because thousands of agents may start at once."""

from __future__ import annotations

import random
import threading

_STARTS_PER_S = 80
"""A start takes 50 ms of CPU time of the API server."""
_LONGEST_S = 60.0
"""A node becomes unknown after 90 s without an agent."""
_COUNT_TIMEOUT_S = 10.0


class StartDelay:
    """One delay for all watches of a process. The number of nodes decides how long it can be."""

    def __init__(self, longest_s: float | None) -> None:
        """Create a delay. 0 derives the longest delay from the number of nodes, ``None`` means no delay.

        Without this number, the cluster can have any size, and the delay is as long as in the largest one.
        """
        self._share = random.random()  # noqa: S311 - no secret
        self._longest_s = _LONGEST_S if longest_s == 0 else longest_s or 0.0
        self._known = threading.Event()
        if longest_s != 0:
            self._known.set()

    def counted(self, nodes: int) -> None:
        """Set the number of nodes, 0 if the API server does not answer. Only the first call has an effect."""
        if not self._known.is_set():
            if nodes:
                self._longest_s = min(nodes / _STARTS_PER_S, _LONGEST_S)
            self._known.set()

    def seconds(self) -> float:
        """Return the delay. Wait until the nodes are counted, for at most 10 s."""
        self._known.wait(_COUNT_TIMEOUT_S)
        return self._share * self._longest_s
