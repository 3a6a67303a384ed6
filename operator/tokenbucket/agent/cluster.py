"""The agent in a cluster: what should be in force, from the API server and from the CNI result cache."""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from tokenbucket.agent.objects import ThisNode, policy_reader, read_node, read_pod, read_switch
from tokenbucket.agent.options import AgentOptions
from tokenbucket.agent.source import DesiredInput, Outcome
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, PODS, POLICIES, Selection
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.cni import CniResults
from tokenbucket.core.api.enforcement import Enforcement, EnforcementConfig
from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Mode, Policy, Refused
from tokenbucket.core.status.node_status import Situation

log = logging.getLogger(__name__)


class ClusterSource:
    """Stores that watches fill, and the CNI result cache; wakes the loop when one of them changes.

    Raises UnsupportedError when there are no credentials.
    """

    def __init__(self, options: AgentOptions) -> None:
        self.options = options
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self.policies: Store[Policy | Refused] = Store(policy_reader(options.protected), self._wake)
        self.pods: Store[Pod] = Store(read_pod, self._wake)
        self.node: Store[ThisNode] = Store(read_node, self._wake)
        self.switch: Store[EnforcementConfig] = Store(read_switch, self._wake)
        self._cni = CniResults(options.cni_results)
        self._poll = select.epoll()
        for each in (self._wakeup, self._cni):
            self._poll.register(each, select.EPOLLIN)
        own_pods = Selection(PODS, f"spec.nodeName={options.node}")
        own_node = Selection(NODES, f"metadata.name={options.node}")
        switch = Selection(CONFIG_MAPS, f"metadata.name={options.switch}")
        self.watches: tuple[Watch, ...] = (
            Watch(Selection(POLICIES), self.policies),
            Watch(own_pods, self.pods),
            Watch(own_node, self.node),
            Watch(switch, self.switch, options.namespace),
        )
        self.situation: Situation | None = None
        """After the last pass."""
        self.asked_at = time.monotonic()
        """When the loop last asked for its wishes."""
        self._enforcement = Enforcement()
        self.clean = False
        self.told: Callable[[], None] = lambda: None
        """Called after each pass."""

    def start(self) -> None:
        """Begins to watch. Thousands of agents may start at once: they spread out by the start jitter."""
        delay_s = random.uniform(0, self.options.start_jitter_s)  # noqa: S311 - no secret
        for watch in self.watches:
            watch.start(delay_s)

    def __str__(self) -> str:
        return f"API server, for node {self.options.node}"

    def fileno(self) -> int:
        """Readable when an object or the CNI result cache has changed."""
        return self._poll.fileno()

    def drain(self) -> None:
        """Read all pending notifications."""
        self._cni.drain()
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass

    def reread(self) -> None:
        """Do nothing: the reporter lists the objects again at its own pace."""

    def wishes(self) -> DesiredInput | None:
        """Return policies, pods and the enforcement mode; ``None`` until all of them have been listed."""
        self.asked_at = time.monotonic()
        if not all(watch.store.synced.is_set() for watch in self.watches):
            return None
        self._read_enforcement()
        policies = tuple(each for each in self.policies.values() if isinstance(each, Policy))
        return DesiredInput(policies, self._pods(), self._enforcement.mode, self._enforcement.cleanup)

    def _read_enforcement(self) -> None:
        """Read the enforcement mode, and log a change of it and each new problem."""
        before = self._enforcement
        node = self.node.get("", self.options.node)
        config = self.switch.get(self.options.namespace, self.options.switch)
        now = self._enforcement = before.update(config, node.word if node else None)
        if now.problem and now.problem != before.problem:
            log.error("enforcement setting rejected", extra={"error": now.problem})
        if now.mode is not before.mode:
            fields = {"before": before.mode, "now": now.mode, "by": now.decided_by}
            log.warning("enforcement mode changed", extra=fields)

    @property
    def problem(self) -> str:
        """Why the enforcement settings are invalid; empty if they are valid."""
        return self._enforcement.problem

    def _pods(self) -> tuple[Pod, ...]:
        """Pods, each with the addresses that the container runtime gave it last, if it says so.

        These are no other pod's, whatever its status says: after a restart of the node that is out of date.
        """
        cached, pods = self._cni.read(), tuple(self.pods.values())
        given = {pod.id: cached[pod.id] for pod in pods if cached.get(pod.id) and not pod.ended}
        taken = frozenset().union(*given.values())
        return tuple(replace(pod, addresses=given.get(pod.id, pod.addresses - taken)) for pod in pods)

    def passed(self, wishes: DesiredInput, outcome: Outcome) -> None:
        """Keep the result of a reconcile run for the reporter."""
        self.clean = False
        self._tell(wishes, wishes.enforcement, outcome)

    def cleaned(self, wishes: DesiredInput) -> None:
        """Nothing of ours is left here: what is declared is off."""
        self.clean = True
        fq = self.situation is not None and self.situation.fq
        self._tell(wishes, Mode.OFF, Outcome(0, True, (), {}, fq))

    def _tell(self, wishes: DesiredInput, enforcement: Mode, outcome: Outcome) -> None:
        refused = tuple(each for each in self.policies.values() if isinstance(each, Refused))
        self.situation = Situation(
            wishes.policies,
            refused,
            wishes.pods,
            enforcement,
            outcome.findings,
            outcome.in_force,
            outcome.fq,
            self.problem,
        )
        self.told()

    def close(self) -> None:
        """Stop the watches."""
        for watch in self.watches:
            watch.stop()
        for each in (self._cni, self._poll, self._wakeup, self._waker):
            each.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it has been woken often enough, or has ended
            self._waker.send(b"\0")
