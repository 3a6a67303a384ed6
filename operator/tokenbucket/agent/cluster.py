"""The agent in a cluster: what should be in force, from the API server and from the CNI result cache."""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tokenbucket.agent.objects import ThisNode, policy_reader, read_node, read_pod, read_switch
from tokenbucket.agent.outcome import Outcome
from tokenbucket.agent.source import DesiredInput
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, PODS, POLICIES, Selection
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.cni.results import CniResults
from tokenbucket.core.api.enforcement import MISSING, EnforcementConfig, EnforcementSetting
from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Mode, Policy, Refused
from tokenbucket.core.status.node_status import Situation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Who the agent is and what it may do."""

    node: str
    namespace: str
    """Of the release."""
    pod: str
    switch: str
    """Name of the release's ConfigMap."""
    protected: frozenset[str] = frozenset()
    readiness_gates: bool = False
    remove_taint: bool = False
    start_jitter_s: float = 0.0
    report_spread_s: float = 2.0
    probe_host: str = "127.0.0.1"
    probe_port: int = 10473
    cni_results: Path = Path("/var/lib/cni/results")


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
        self._of_release = self._of_node = EnforcementSetting()
        self._enforcement = Mode.ENFORCE
        self._cleanup = False
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
        """Takes what waits."""
        self._cni.drain()
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass

    def reread(self) -> None:
        """The stores are listed anew by the reporter, in its own time."""

    def wishes(self) -> DesiredInput | None:
        """What policies, pods and the switch say; ``None`` until all of them have been listed."""
        self.asked_at = time.monotonic()
        if not all(watch.store.synced.is_set() for watch in self.watches):
            return None
        self._read_switch()
        policies = tuple(each for each in self.policies.values() if isinstance(each, Policy))
        return DesiredInput(policies, self._pods(), self._switched(), self._cleanup)

    def _read_switch(self) -> None:
        before = self.problem
        if switch := self.switch.get(self.options.namespace, self.options.switch):
            self._of_release = switch.word.after(self._of_release)
            self._cleanup = switch.cleanup
        elif not self._cleanup:  # then it goes with the release, while agents may still run
            self._of_release = MISSING.after(self._of_release)
        if node := self.node.get("", self.options.node):
            self._of_node = node.word.after(self._of_node)
        if self.problem and self.problem != before:
            log.error("switch not understood", extra={"error": self.problem})

    def _switched(self) -> Mode:
        """What the switch says. A change of it is logged: whoever looks for a cause finds it there."""
        before = self._enforcement
        self._enforcement = self._of_node.mode or self._of_release.mode or Mode.ENFORCE
        if self._enforcement is not before:
            by = "the node's label" if self._of_node.mode else "the ConfigMap"
            log.warning("enforcement switched", extra={"before": before, "now": self._enforcement, "by": by})
        return self._enforcement

    @property
    def problem(self) -> str:
        """What is wrong with the kill switch."""
        return "; ".join(filter(None, (self._of_release.problem, self._of_node.problem)))

    def _pods(self) -> tuple[Pod, ...]:
        """Pods, each with the addresses that the container runtime gave it last, if it says so.

        These are no other pod's, whatever its status says: after a restart of the node that is out of date.
        """
        cached, pods = self._cni.read(), tuple(self.pods.values())
        given = {pod.id: cached[pod.id] for pod in pods if cached.get(pod.id) and not pod.ended}
        taken = frozenset().union(*given.values())
        return tuple(replace(pod, addresses=given.get(pod.id, pod.addresses - taken)) for pod in pods)

    def passed(self, wishes: DesiredInput, outcome: Outcome) -> None:
        """Keeps what is to be reported."""
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
        """Ends the watches."""
        for watch in self.watches:
            watch.stop()
        for each in (self._cni, self._poll, self._wakeup, self._waker):
            each.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it has been woken often enough, or has ended
            self._waker.send(b"\0")
