"""Random events on a node: after each event, the limits are on the selected pods, and on no others.

At any time, at most one of the three sources is wrong about a pod: its status is outdated, or its result is
torn or lost. Results of lost sandboxes are always present, with any time. Labels and the policy change, and
other programs remove filters.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.netns.agent import drop, free_slots, policy
from tests.netns.in_process import InProcessAgent, write_result
from tests.netns.lab import Lab, ip, tc
from tests.netns.lab import Pod as Network
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Policy

_MOST_PODS = 6
_DIRECTIONS = ("ingress", "egress")
_ADDRESSES = [f"10.9.0.{number}/24" for number in range(2, 2 + _MOST_PODS + 2)]


@dataclass
class Running:
    """A pod, its network, and the state of the pod in the API server."""

    id: PodId
    selected: bool
    network: Network
    result: Path
    status: frozenset[IPv4Address] = frozenset()
    result_is_whole: bool = True
    lost: frozenset[IPv4Address] = frozenset()
    """Addresses of its earlier sandboxes. A status with one of them may be outdated."""

    @property
    def is_known(self) -> bool:
        """Return whether two sources agree about the pod: the kernel, and its result or its status."""
        return self.result_is_whole or self.status == {self.network.ip} - self.lost

    @property
    def in_api(self) -> Pod:
        return Pod(self.id, {"app": "web" if self.selected else "other"}, self.status)


@dataclass
class Node:
    """A node on which random events occur."""

    lab: Lab
    results: Path
    random: random.Random
    pods: dict[str, Running] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    limits: frozenset[str] = frozenset({"ingress"})
    """The directions that the policy limits. None if there is no policy."""
    _rate: int = 1
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lost: list[bytes] = field(default_factory=list)
    """Contents of the results of sandboxes that no longer exist."""

    def happen(self) -> None:
        """Apply an event, if it is possible."""
        name = self.random.choice(_EVENTS)
        self.log.append(name)
        getattr(self, f"_{name}")()

    @property
    def policies(self) -> list[Policy]:
        limits = {direction: drop(self._rate, 10) for direction in self.limits}
        return [parse_policy(policy("web", app="web", **limits))] if limits else []

    @property
    def selected(self) -> list[Running]:
        """Return the pods that the policy limits."""
        return [pod for pod in self.pods.values() if pod.selected and self.limits]

    def _any(self) -> Running | None:
        return self.random.choice(list(self.pods.values())) if self.pods else None

    def _start(self) -> None:
        if len(self.pods) < _MOST_PODS:
            pod = PodId("default", f"pod{next(self._numbers)}", f"uid{next(self._numbers)}")
            self.pods[pod.name] = self._run(pod, selected=self.random.random() < 0.5)

    def _run(self, pod: PodId, *, selected: bool) -> Running:
        free = set(_ADDRESSES) - {each.network.addresses[0] for each in self.pods.values()}
        sandbox = f"s{next(self._numbers)}"
        network = self.lab.pod(sandbox, [self.random.choice(sorted(free))], "bridge")
        return Running(pod, selected, network, write_result(self.results, pod, sandbox, network))

    def _end(self) -> None:
        if pod := self._any():
            self._lose_sandbox(pod)
            del self.pods[pod.id.name]

    def _replace_sandbox(self) -> None:
        """Restart a pod. Its status does not change yet."""
        if pod := self._any():
            self._lose_sandbox(pod)
            after = self._run(pod.id, selected=pod.selected)
            after.status, after.lost = pod.status, pod.lost | {pod.network.ip}
            self.pods[pod.id.name] = after

    def _lose_sandbox(self, pod: Running) -> None:
        self.lab.delete(pod.network)
        if pod.result_is_whole:
            self._lost.append(pod.result.read_bytes())
        if self.random.random() < 0.5 or not pod.result_is_whole:
            pod.result.unlink(missing_ok=True)

    def _report(self) -> None:
        """Write the status, as the kubelet does."""
        if pod := self._any():
            pod.status = frozenset({pod.network.ip})

    def _restore_statuses(self) -> None:
        """Give a pod the status of another pod, as after a restart of the node."""
        whole = [pod for pod in self.pods.values() if pod.result_is_whole]
        if len(whole) >= 2:
            one, other = self.random.sample(whole, 2)
            one.status, other.status = other.status, one.status

    def _tear(self) -> None:
        """Truncate, empty or remove a result."""
        pod = self._any()
        if pod and pod.status == {pod.network.ip}:
            content = pod.result.read_bytes() if pod.result.exists() else b""
            pod.result.write_bytes(content[: self.random.randrange(len(content) or 1)])
            if self.random.random() < 0.3:
                pod.result.unlink()
            pod.result_is_whole = False

    def _restore_result(self) -> None:
        """Restore a backup of a result, with a new file time."""
        if self._lost:
            path = self.results / f"pods-restored{next(self._numbers)}-eth0"
            path.write_bytes(self.random.choice(self._lost))

    def _misdate(self) -> None:
        for path in self.results.iterdir():
            time = self.random.randrange(1 << 62)
            os.utime(path, ns=(time, time))

    def _rename(self) -> None:
        if pod := self._any():
            name = f"v{next(self._numbers)}"
            ip("link", "set", pod.network.veth, "name", name)
            pod.network.veths[0] = name

    def _rename_inside(self) -> None:
        if pod := self._any():
            name = f"e{next(self._numbers)}"
            links = ip("-brief", "link", "show", "type", "veth", netns=pod.network.netns).split("@")
            ip("link", "set", links[0], "down", netns=pod.network.netns)
            ip("link", "set", links[0], "name", name, netns=pod.network.netns)
            ip("link", "set", name, "up", netns=pod.network.netns)

    def _add_interface(self) -> None:
        """Add an interface that no result names."""
        pod = self._any()
        if pod and len(pod.network.veths) == 1:
            self.lab.add_interface(pod.network, "eth1")

    def _remove_interface(self) -> None:
        pod = self._any()
        if pod and len(pod.network.veths) == 2:
            ip("link", "delete", pod.network.veths.pop())

    def _label(self) -> None:
        if pod := self._any():
            pod.selected = not pod.selected

    def _edit_policy(self) -> None:
        """Change the rate and the directions, or remove the policy."""
        self._rate += 1
        chosen = self.random.choice([{"ingress"}, {"egress"}, _DIRECTIONS, _DIRECTIONS, ()])
        self.limits = frozenset(chosen)

    def _remove_filters(self) -> None:
        """Remove all filters at a hook, as some CNI plugins do, or both hooks."""
        if pod := self._any():
            veth = self.random.choice(pod.network.veths)
            with suppress(AssertionError):  # the interface has no clsact qdisc
                if self.random.random() < 0.5:
                    tc("filter", "delete", "dev", veth, self.random.choice(_DIRECTIONS))
                else:
                    tc("qdisc", "delete", "dev", veth, "clsact")

    def _steal(self) -> None:
        """Add the address of another pod to a pod."""
        one, other = self._any(), self._any()
        if one and other and one is not other and one.result_is_whole and other.result_is_whole:
            with suppress(AssertionError):  # the pod already has the address
                ip("address", "add", str(other.network.ip), "dev", "lo", netns=one.network.netns)

    def _add_namespace(self) -> None:
        """Add a namespace that belongs to no pod, with an address of a pod."""
        if len(self.lab.pods) < 2 * _MOST_PODS:
            self.lab.pod(f"x{next(self._numbers)}", wire=False)

    def _nothing(self) -> None:
        pass


_EVENTS = [
    *("start", "start", "end", "replace_sandbox", "replace_sandbox", "report", "report", "report"),
    *("restore_statuses", "tear", "restore_result", "misdate", "rename", "rename_inside", "steal"),
    *("add_namespace", "add_interface", "add_interface", "remove_interface", "label", "label"),
    *("edit_policy", "remove_filters", "remove_filters", "nothing"),
]


def reconcile(node: Node, agent: InProcessAgent) -> bool:
    """Reconcile once. Return whether nothing is left to do."""
    return agent.reconcile(node.policies, [pod.in_api for pod in node.pods.values()]).complete


def verify_slots(node: Node, agent: InProcessAgent) -> None:
    """Assert that slots without a filter are freed. A new agent searches the namespaces in a second run."""
    for _ in range(3):
        if reconcile(node, agent):
            break
    owners = {slot.owner.key.subject.name for slot in agent.slots.read().values()}
    assert owners <= {pod.id.name for pod in node.selected}, node.log


def verify_limits(node: Node, agent: InProcessAgent) -> None:
    """Compare the limits in the kernel with the pods."""
    limits = agent.limits()
    behind = {veth: pod for pod in node.pods.values() for veth in pod.network.veths}
    for veth, found in limits.items():
        pod = behind[veth]
        expected = {(pod.id.name, direction) for direction in node.limits if pod.selected}
        assert found <= expected, f"{veth} of {pod} has {found}, not {expected}; {node.log}"
    for pod in node.selected:
        for veth in pod.network.veths if pod.is_known else ():
            missing = node.limits - {direction for _, direction in limits.get(veth, ())}
            assert not missing, f"{veth} of {pod} has no limit of {missing}; {node.log}"


@pytest.mark.parametrize("seed", range(3))
def test_only_selected_pods_are_limited(
    lab: Lab, tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    """Check after each event and one reconcile run, and assert that no slot is leaked.
    Use --random-events for a longer run.
    """
    free_slots()
    chance = random.Random(f"{request.config.getoption('--random-seed')}-{seed}")
    node = Node(lab, tmp_path / "results", chance)
    node.results.mkdir()
    left = request.config.getoption("--random-events")
    while left > 0:
        with InProcessAgent(node.results) as agent:  # a new agent knows only the kernel's state
            for _ in range(min(left, chance.randrange(1, 40))):
                node.happen()
                reconcile(node, agent)
                verify_limits(node, agent)
                verify_slots(node, agent)
                left -= 1
        node.log.append("restart")
