"""Agents, pods and controllers that fail in any order: Ready hides no unlimited pod for long."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.generated import inputs
from tests.unit.controller.test_reconciler import READY, rfc3339
from tokenbucket.apiserver.connection import Outage
from tokenbucket.apiserver.lease import LEASES, Election
from tokenbucket.apiserver.resources import NODES as NODE_KIND
from tokenbucket.apiserver.resources import POLICIES, REPORTS, Resource, Selection, is_ready
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.heartbeats import Heartbeats
from tokenbucket.controller.objects import Stores, read_agent, read_node, read_policy, read_report
from tokenbucket.controller.reconciler import StatusReconciler
from tokenbucket.core.api.node_report import (
    NodeReport,
    PodCounts,
    PolicyReport,
    Sync,
    WatchContact,
    to_document,
)
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.errors import ApiError

UNIX_S = 1_800_000_000
PERIOD_S = 20
STEP_S = 5
DEAF_S = 100
DOCUMENTED_S = DEAF_S + PERIOD_S + 2 * STEP_S
"""The longest time until a node is unknown: a dead watch, and the next report."""
HEALED_S = 60
NODES = ("a", "b", "c", "d")
"""The last one joins later."""
IDLE = {"namespace": "bank", "name": "idle", "uid": "idle-uid", "generation": 1}
"""A policy that selects no pod."""
# A slow agent can report, and receives nothing yet: the API server throttles its watches.
REPORTING = {"up", "deaf to pods", "slow"}
STATES = ("up", "restarting", "deaf", "deaf to pods", "slow", "gone")


@dataclass
class Node:
    """A node with its agent and its pods."""

    state: str = "up"
    ready: bool = True
    joined_s: float | None = None
    """Time of the creation. ``None`` if the cluster has no such node."""
    full: bool = False
    """Whether other policies leave no room in its report."""
    pods: dict[str, bool] = field(default_factory=dict)
    """Whether each pod has the label that the first selector of the policy demands."""
    off: bool = False
    """Whether the label of the node turns enforcement off."""
    used: tuple[tuple[str, int], frozenset[str]] = (("", 0), frozenset())
    """The uid and the generation of the policy that the agent has used last, and the pods that it limits."""
    version: int = 0
    """The newest version of the policy that the agent has received, with or without a new generation."""
    heard_s: float = 0.0
    reported_s: float = -1e9
    reported_version: int = 0
    told: object = None


@dataclass
class Controller:
    """One replica."""

    reconciler: StatusReconciler
    election: Election
    stopped: bool = False
    """Whether the process is stopped, and keeps its memory."""


class Cluster(RuleBasedStateMachine):
    """The real controller on a model of everything else. Time is simulated in steps."""

    @initialize()
    def start(self) -> None:
        self.now = 1000.0
        self.versions = itertools.count(1)
        self.names = itertools.count()
        self.nodes = {name: Node() for name in NODES}
        self.lease: dict[str, Any] = {}
        self.away = False
        self.outage = Outage()
        self.away_at = 0.0
        self.everywhere = False
        self.status: Mapping[str, Any] = {}
        self.idle_status: Mapping[str, Any] = {}
        self.generation = self.version = 0
        self.uid = "web-uid"
        self.unlimited_since: dict[str, float] = {}
        self.stores = Stores(Store(read_policy), Store(read_report), Store(read_agent), Store(read_node))
        self.controllers: list[Controller] = []
        self.set_controllers(1)
        self.write_idle_policy()
        self.edit(everywhere=False)
        for name in NODES[:-1]:
            self.join(name, "up")
        self.wait(4)

    def unix_s(self) -> float:
        return UNIX_S + self.now

    # What happens.

    @rule(number=st.integers(0, 2))
    def set_controllers(self, number: int) -> None:
        """Restart all controllers: none, one or two of them."""

        def started() -> Controller:
            heartbeats = Heartbeats(lambda: self.outage, lambda: self.now, self.unix_s)
            election = Election(f"shop/{next(self.names)}", clock=lambda: self.now)
            reconciler = StatusReconciler(self.stores, lambda _: None, heartbeats, lambda: election.leads)
            return Controller(reconciler, election)

        self.controllers = [started() for _ in range(number)]
        self.reconciled = False

    @rule(stopped=st.lists(st.booleans(), min_size=2, max_size=2))
    def stop_controllers(self, stopped: list[bool]) -> None:
        """Stop the processes of controllers, or continue them: another one becomes the leader."""
        for controller, each in zip(self.controllers, stopped, strict=False):
            controller.stopped = each
        self.reconciled = False

    @rule(everywhere=st.booleans())
    def edit(self, *, everywhere: bool) -> None:
        """Change the rate and maybe the selector of the policy."""
        if not self.away:
            self.everywhere = everywhere
            self.generation += 1
            self.version = self.edited = self.write_policy()

    @rule(everywhere=st.booleans())
    def recreate(self, *, everywhere: bool) -> None:
        """Replace the policy by another one with the same name."""
        if not self.away:
            metadata = {"namespace": "shop", "name": "web", "resourceVersion": str(next(self.versions))}
            self.stores.policies.remove({"metadata": metadata})
            self.uid, self.generation, self.status = f"web-{next(self.names)}", 0, {}
            self.edit(everywhere=everywhere)

    @rule()
    def edit_status(self) -> None:
        """Claim that the policy is ready. A controller corrects that with its next run."""
        if any(each.election.leads and not each.stopped for each in self.controllers) and not self.away:
            ready = {"type": "Ready", "status": "True", "reason": "Edited"}
            self.status = {"observedGeneration": self.generation, "conditions": [ready]}
            self.version = self.write_policy()
            self.wait(1)
            assert self.status["conditions"] != [ready]

    @rule(name=st.sampled_from(NODES), off=st.booleans())
    def switch(self, name: str, *, off: bool) -> None:
        """Turn enforcement off on one node, or on again."""
        self.nodes[name].off = off

    @rule(
        name=st.sampled_from(NODES), state=st.sampled_from(STATES), ready=st.sampled_from([True, True, False])
    )
    def set_node(self, name: str, state: str, *, ready: bool) -> None:
        """Break or repair a node or its agent."""
        node = self.nodes[name]
        node.state, node.ready = state, ready

    @rule(name=st.sampled_from(NODES), state=st.sampled_from(STATES))
    def join(self, name: str, state: str) -> None:
        """Create a node, maybe one of an earlier name, with or without an agent."""
        if not self.away and self.nodes[name].joined_s is None:
            self.nodes[name] = Node(state, joined_s=self.now)

    @rule(name=st.sampled_from(NODES))
    def leave(self, name: str) -> None:
        """Delete a node with its pods. Its report stays until a controller deletes it."""
        if not self.away and self.nodes[name].joined_s is not None:
            self.nodes[name] = Node()
            for store, found in ((self.stores.nodes, name), (self.stores.agents, f"agent-{name}")):
                store.remove({"metadata": {"name": found, "resourceVersion": str(next(self.versions))}})

    @rule(name=st.sampled_from(NODES))
    def edit_report(self, name: str) -> None:
        """Remove all policies from a report. The agent writes it again, if one runs."""
        known = self.stores.reports.get("", name)
        if known and not self.away:
            status = to_document(replace(known.report, policies=())) | {"conditions": list(known.conditions)}
            self.put(self.stores.reports, {"metadata": {"name": name, "uid": name}, "status": status})
            self.nodes[name].told = None

    @rule(name=st.sampled_from(NODES), full=st.booleans())
    def fill_report(self, name: str, *, full: bool) -> None:
        """Let thousands of policies of an earlier namespace come and go."""
        self.nodes[name].full, self.nodes[name].told = full, None

    @rule(name=st.sampled_from(NODES), labeled=st.booleans())
    def add_pod(self, name: str, *, labeled: bool) -> None:
        """Start a pod."""
        node = self.nodes[name]
        if not self.away and node.joined_s is not None and len(node.pods) < 3:
            self.nodes[name].pods[f"pod-{next(self.names)}"] = labeled

    @rule(name=st.sampled_from(NODES), state=st.sampled_from(STATES), edits=st.booleans())
    def fail_before_news(self, name: str, state: str, *, edits: bool) -> None:
        """Break an agent shortly before a new pod, and maybe an edit. Then wait longer than documented."""
        self.set_node(name, state, ready=True)
        self.add_pod(name, labeled=True)
        if edits:
            self.edit(everywhere=self.everywhere)
        self.wait(30)

    @rule(name=st.sampled_from(NODES))
    def remove_pod(self, name: str) -> None:
        """End a pod."""
        if self.nodes[name].pods:
            self.nodes[name].pods.popitem()

    @rule(name=st.sampled_from(NODES))
    def delete_report(self, name: str) -> None:
        """Delete a report. Without an agent, the node then is like one that never had any."""
        if not self.away:
            metadata = {"name": name, "resourceVersion": str(next(self.versions))}
            self.stores.reports.remove({"metadata": metadata})
            self.nodes[name].told = None

    @rule(away=st.booleans())
    def set_api_server(self, *, away: bool) -> None:
        """Stop or start the API server."""
        if away and not self.away:
            self.away_at = self.now
        if self.away and not away:
            self.outage = self.outage.followed_by(self.away_at, self.now)
            self.reconciled = False
        self.away = away

    @rule(steps=st.sampled_from([1, 2, 4, 12, 30]))
    def wait(self, steps: int) -> None:
        """Let time pass."""
        for _ in range(steps):
            self.now += STEP_S
            for name, node in self.nodes.items():
                self.run_agent(name, node)
            self.deliver()
            if not self.away:
                asyncio.run(self.run_controllers(self))
            self.look()

    async def run_controllers(self, client: Any) -> None:
        for controller in self.controllers:
            if controller.stopped:
                continue
            await controller.election.step(client)
            if controller.election.leads:
                await controller.reconciler.reconcile(client)
                self.reconciled = True

    @rule()
    def heal(self) -> None:
        """Repair everything. The policy is ready again within the documented time."""
        self.set_api_server(away=False)
        if not self.controllers:
            self.set_controllers(1)
        for controller in self.controllers:
            controller.stopped = False
        for name in NODES:
            self.set_node(name, "up", ready=True)
            self.nodes[name].full = self.nodes[name].off = False
        if not any(node.joined_s for node in self.nodes.values()):
            self.join(NODES[0], "up")  # no policy is ready without any node
        self.wait(HEALED_S // STEP_S)
        assert self.is_ready(), self.status
        assert is_ready({"status": self.idle_status}), self.idle_status

    # What must hold.

    @invariant()
    def ready_hides_no_unlimited_pod(self) -> None:
        if hasattr(self, "unlimited_since"):
            self.look()

    @invariant()
    def at_most_one_controller_leads(self) -> None:
        if hasattr(self, "controllers"):
            assert sum(each.election.leads for each in self.controllers) <= 1

    @invariant()
    def a_policy_without_pods_is_ready(self) -> None:
        """Limit each failure to the policies with pods there, as long as any agent reports."""
        if self.idle_status and not is_ready({"status": self.idle_status}):
            ready = self.idle_status["conditions"][-1]
            assert ready["reason"] == "Updating" or "from any node" in ready["message"], ready

    def look(self) -> None:
        selected = {pod: node for node in self.nodes.values() for pod in self.selected(node)}
        self.unlimited_since = {
            pod: self.unlimited_since.get(pod, self.now)
            for pod, node in selected.items()
            if pod not in node.used[1] and node.ready
        }
        if self.is_ready() and self.reconciled and not self.away:
            late = {
                pod
                for pod, since in self.unlimited_since.items()
                if self.now - max(since, self.outage.end) > DOCUMENTED_S
            }
            assert not late, (late, self.status)
            unseen = {
                name
                for name, node in self.nodes.items()
                if node.state in REPORTING
                and self.selected(node)
                and node.reported_version < self.edited
                and self.now - node.heard_s <= DEAF_S  # later, its pods are read from time to time
            }
            assert not unseen or self.status["observedGeneration"] < self.generation, (unseen, self.status)

    def is_ready(self) -> bool:
        return is_ready({"status": self.status})

    @property
    def policy(self) -> tuple[str, int]:
        """Return the uid and the generation of the policy."""
        return self.uid, self.generation

    def selected(self, node: Node) -> list[str]:
        return [pod for pod, labeled in node.pods.items() if labeled or self.everywhere]

    # The agents.

    def run_agent(self, name: str, node: Node) -> None:
        if self.away or node.joined_s is None or node.state in {"restarting", "deaf", "gone"}:
            return
        if node.state == "up":
            node.used = self.policy, frozenset(() if node.off else self.selected(node))
            node.version, node.heard_s = self.version, self.now
        if node.state == "deaf to pods":  # it knows the policy, and the pods of before
            node.used, node.version = (self.policy, node.used[1]), self.version
        if node.told != node.used or self.now - node.reported_s >= PERIOD_S:
            node.told, node.reported_s, node.reported_version = node.used, self.now, node.version
            self.report(name, node)

    def report(self, name: str, node: Node) -> None:
        (uid, generation), limited = node.used
        pods = len(limited & node.pods.keys())
        off = len(self.selected(node)) if node.off else 0
        counts = PodCounts(pods + off, pods, off=off)
        entry = PolicyReport("shop", "web", uid, generation, pods=counts)
        watches = (WatchContact("pods", rfc3339(UNIX_S + node.heard_s)),)
        sync = Sync(rfc3339(self.unix_s()), PERIOD_S, node.version, watches)
        entries = (entry,) if pods + off else ()
        if node.full:
            entries = (PolicyReport("aaa", "other", "other-uid", 1, pods=PodCounts(1, 1)),)
        document = to_document(NodeReport(sync=sync, policies=entries, policies_omitted=int(node.full)))
        conditions = self.stores.reports.get("", name)
        if conditions:
            document["conditions"] = list(conditions.conditions)
        self.put(self.stores.reports, {"metadata": {"name": name, "uid": name}, "status": document})

    # The API server.

    def put(self, store: Store[Any], document: dict[str, Any]) -> int:
        version = next(self.versions)
        store.put({**document, "metadata": {**document["metadata"], "resourceVersion": str(version)}})
        return version

    def write_policy(self) -> int:
        labels = {} if self.everywhere else {"matchLabels": {"app": "web"}}
        metadata = {"namespace": "shop", "name": "web", "uid": self.uid, "generation": self.generation}
        limit = {"rate": {"bits": f"{self.generation}M"}}
        document = {"apiVersion": API_VERSION, "kind": POLICY, "metadata": metadata}
        document |= {"spec": {"podSelector": labels, "ingress": limit}, "status": self.status}
        return self.put(self.stores.policies, document)

    def write_idle_policy(self) -> None:
        spec = {"podSelector": {"matchLabels": {"app": "none"}}, "ingress": {"rate": {"bits": "1M"}}}
        document = {"apiVersion": API_VERSION, "kind": POLICY, "metadata": IDLE, "spec": spec}
        self.version = self.put(self.stores.policies, {**document, "status": self.idle_status})

    def deliver(self) -> None:
        """Deliver the states of nodes and of agent pods."""
        if self.away:
            return
        for name, node in self.nodes.items():
            if node.joined_s is None:
                continue
            created = rfc3339(UNIX_S + node.joined_s)
            metadata = {"name": name, "creationTimestamp": created}
            self.put(self.stores.nodes, {"metadata": metadata, "status": READY if node.ready else {}})
            metadata = {"name": f"agent-{name}", "creationTimestamp": created}
            pod = {"metadata": metadata, "spec": {"nodeName": name}}
            pod["status"] = {} if node.state == "restarting" or not node.ready else READY
            if node.state == "gone":
                self.stores.agents.remove(
                    {"metadata": {**metadata, "resourceVersion": str(next(self.versions))}}
                )
            else:
                self.put(self.stores.agents, pod)

    async def apply(
        self, resource: Resource, document: Mapping[str, Any], _: str, subresource: str = ""
    ) -> dict[str, Any]:
        """Store what a controller writes."""
        if resource == POLICIES and document["metadata"]["name"] == IDLE["name"]:
            self.idle_status = document["status"]
            self.write_idle_policy()
        elif resource == POLICIES and subresource:
            if document["metadata"]["uid"] != self.uid:
                raise ApiError("PATCH", "", 409, "conflict")
            self.status = document["status"]
            self.version = self.write_policy()
        elif resource == REPORTS:
            report = self.stores.reports.get("", document["metadata"]["name"])
            assert report
            status = to_document(report.report) | {"conditions": document["status"]["conditions"]}
            self.put(self.stores.reports, {"metadata": document["metadata"], "status": status})
        return {}

    async def list(self, selection: Selection, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return a report as the store contains it."""
        assert (selection.resource, namespace) == (REPORTS, None)
        return []

    async def page(
        self, selection: Selection, namespace: str | None, size: int, following: str
    ) -> tuple[Sequence[dict[str, Any]], str]:
        """Return the pods of a node."""
        assert namespace is None
        assert not following
        name = selection.fields.split(",")[0].partition("=")[2]
        pods = self.nodes[name].pods
        assert len(pods) <= size
        return [
            {"metadata": {"namespace": "shop", "name": pod, "labels": {"app": "web"} if labeled else {}}}
            for pod, labeled in pods.items()
        ], ""

    async def create(self, resource: Resource, _: str, document: Mapping[str, Any]) -> None:
        """Accept events, and store the first Lease."""
        if resource == LEASES:
            await self.replace(resource, document)

    async def replace(self, _: Resource, document: Mapping[str, Any]) -> None:
        """Store the Lease, unless it has changed since."""
        known = self.lease.get("metadata", {}).get("resourceVersion")
        if known != document["metadata"].get("resourceVersion"):
            raise ApiError("PUT", "", 409, "conflict")
        version = str(next(self.versions))
        self.lease = {**document, "metadata": {**document["metadata"], "resourceVersion": version}}

    async def get(self, resource: Resource, name: str, *_: object) -> dict[str, Any]:
        """Return the Lease or a node."""
        if resource == LEASES and self.lease:
            return self.lease
        if resource == NODE_KIND and self.nodes[name].joined_s is not None:
            return {}
        raise ApiError("GET", "", 404, "not found")

    async def delete(self, _: Resource, name: str) -> None:
        """Delete the report of a node that has left."""
        self.stores.reports.remove({"metadata": {"name": name, "resourceVersion": str(next(self.versions))}})


@pytest.mark.parametrize("edits", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_a_failed_agent_is_noticed_and_a_repaired_one_too(state: str, *, edits: bool) -> None:
    """Try each failure alone, before random sequences of them."""
    cluster = Cluster()
    cluster.start()
    cluster.fail_before_news("a", state, edits=edits)
    assert cluster.is_ready() is (state == "up")
    cluster.heal()


def test_a_node_that_never_had_an_agent_is_noticed() -> None:
    """A selector, a quota or a taint can keep agents away from a node with pods."""
    cluster = Cluster()
    cluster.start()
    cluster.set_node("a", "gone", ready=True)
    cluster.delete_report("a")
    cluster.add_pod("a", labeled=True)
    cluster.wait(30)
    assert not cluster.is_ready()
    cluster.heal()


def test_a_policy_that_a_report_omits_is_not_ready() -> None:
    """Trust no report without room for the policy. Its pods may be unlimited."""
    cluster = Cluster()
    cluster.start()
    cluster.add_pod("a", labeled=True)
    cluster.fill_report("a", full=True)
    cluster.wait(30)
    assert not cluster.is_ready()
    cluster.heal()


def test_only_the_failure_of_all_agents_affects_a_policy_without_pods() -> None:
    """Come back with the first agent, also for a new controller."""
    cluster = Cluster()
    cluster.start()
    for name in NODES[:-2]:
        cluster.fail_before_news(name, "deaf", edits=False)
    assert is_ready({"status": cluster.idle_status})
    cluster.set_node(NODES[-2], "deaf", ready=True)
    cluster.wait(30)
    cluster.a_policy_without_pods_is_ready()
    assert not is_ready({"status": cluster.idle_status})
    cluster.set_controllers(1)
    cluster.set_node("a", "up", ready=True)
    cluster.wait(12)
    assert is_ready({"status": cluster.idle_status})
    cluster.heal()


@pytest.mark.parametrize("state", ["up", "gone"])
def test_a_node_that_joins_counts_and_one_that_leaves_does_not(state: str) -> None:
    """Delete the report of a node that has left, and forget its pods."""
    cluster = Cluster()
    cluster.start()
    cluster.join("d", state)
    cluster.add_pod("d", labeled=True)
    cluster.wait(30)
    assert cluster.is_ready() is (state == "up")
    cluster.leave("d")
    cluster.wait(12)
    assert cluster.is_ready()
    assert not cluster.stores.reports.get("", "d")


def test_no_policy_is_ready_without_any_node() -> None:
    """Come back with the first node that joins."""
    cluster = Cluster()
    cluster.start()
    for name in NODES[:-1]:
        cluster.leave(name)
    cluster.wait(12)
    cluster.a_policy_without_pods_is_ready()
    assert not cluster.is_ready()
    cluster.heal()


def test_another_controller_leads_if_the_leader_stops() -> None:
    """Find the failure of an agent after the change of the leader, and write nothing with the old one."""
    cluster = Cluster()
    cluster.start()
    cluster.set_controllers(2)
    cluster.wait(6)
    assert [each.election.leads for each in cluster.controllers] == [True, False]
    cluster.stop_controllers([True, False])
    cluster.fail_before_news("a", "gone", edits=False)
    assert [each.election.leads for each in cluster.controllers] == [False, True]
    assert not cluster.is_ready()
    cluster.stop_controllers([False, False])
    cluster.heal()
    assert [each.election.leads for each in cluster.controllers] == [False, True]


TestCluster = Cluster.TestCase
TestCluster.settings = inputs(20, stateful_step_count=15)
