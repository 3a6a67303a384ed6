"""When the controller writes a status, and which nodes it takes into account."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.connection import answers
from tokenbucket.apiserver.resources import EVENTS, NODES, POLICIES, REPORTS
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.objects import read_agent, read_node, read_policy, read_report
from tokenbucket.controller.reconciler import StatusReconciler, Stores
from tokenbucket.core.api.node_report import NodeReport, PodCounts, PolicyReport, to_document
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.errors import ApiError

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def node(name: str) -> Mapping[str, Any]:
    return {"metadata": {"name": name}, "status": READY}


def agent(name: str, *, ready: bool = True, age_s: float = 1000) -> Mapping[str, Any]:
    """The pod of the agent of a node."""
    metadata = {"name": f"agent-{name}", "creationTimestamp": ago(age_s)}
    return {"metadata": metadata, "spec": {"nodeName": name}, "status": READY if ready else {}}


def report(name: str, pods: int = 1) -> Mapping[str, Any]:
    """A node with the policy in force on so many pods."""
    reports = (PolicyReport("shop", "web", "web-uid", 1, pods=PodCounts(pods, pods)),) if pods else ()
    metadata = {"name": name, "uid": name, "creationTimestamp": ago(0)}
    return {"metadata": metadata, "status": to_document(NodeReport(policies=reports))}


def writes_status(policy: str) -> Callable[[Seen], bool]:
    """Whether a request writes the status of that policy."""
    return lambda seen: seen.method == "PATCH" and seen.path.endswith(f"/{policy}/status")


def writes_agent_condition(seen: Seen) -> bool:
    """Whether a request says in a report how its agent is."""
    return seen.method == "PATCH" and seen.path.startswith(REPORTS.path())


class Cluster:
    """What a controller sees, and the API server that it writes to."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        api.kinds |= {REPORTS, NODES, EVENTS}
        self.stores = Stores(Store(read_policy), Store(read_report), Store(read_agent), Store(read_node))
        self.waits: list[float] = []
        self.report_spread_s = 2.0

    def policy(self, age_s: float, name: str = "web", rate: str = "1M") -> None:
        """One that was written so long ago."""
        limit = {"rate": {"bits": rate}}
        document = self._api.put(
            POLICIES,
            name,
            "shop",
            apiVersion=API_VERSION,
            kind=POLICY,
            metadata={"generation": 1, "creationTimestamp": ago(age_s)},
            spec={"podSelector": {}, "ingress": limit},
        )
        self.stores.policies.put(document)

    def round(self) -> None:
        """Makes one. Raises as it does."""

        async def make() -> None:
            async with Client() as client:
                await StatusReconciler(self.stores, self.waits.append, self.report_spread_s).reconcile(client)

        asyncio.run(make())

    def written(self) -> dict[str, str]:
        """After a round, the reason of each condition that was written, if any were."""
        self.round()
        writes = self._api.seen(writes_status("web"))
        conditions = json.loads(writes[-1].body)["status"]["conditions"] if writes else []
        return {each["type"]: each["reason"] for each in conditions}


@pytest.fixture
def cluster(api: FakeApi) -> Cluster:
    """One node whose agent lives and has spoken."""
    found = Cluster(api)
    for store, document in (
        (found.stores.nodes, node("a")),
        (found.stores.agents, agent("a")),
        (found.stores.reports, report("a")),
    ):
        store.put(document)
    return found


def test_a_policy_is_called_ready_only_when_every_agent_had_the_time_to_speak(cluster: Cluster) -> None:
    """The first to speak may be the only one that has done it."""
    cluster.policy(age_s=1)
    assert cluster.written() == {}
    assert 0 < min(cluster.waits) <= 4
    cluster.policy(age_s=5)
    assert cluster.written()["Ready"] == "Programmed"


def test_agents_that_take_their_time_are_waited_for(cluster: Cluster) -> None:
    """Those of thousands of nodes are told to: until then, one that has spoken speaks for itself alone."""
    cluster.report_spread_s = 60.0
    cluster.policy(age_s=50)
    assert cluster.written() == {}
    cluster.policy(age_s=63)
    assert cluster.written()["Ready"] == "Programmed"


def test_that_a_policy_selects_no_pod_is_said_when_all_agents_were_due(cluster: Cluster) -> None:
    """Until then nobody may have looked."""
    cluster.report_spread_s = 60.0
    cluster.stores.reports.put(report("a", pods=0))
    cluster.policy(age_s=50)
    assert cluster.written() == {}
    cluster.policy(age_s=70)
    assert cluster.written()["Programmed"] == "NoMatchingPods"


def test_a_policy_is_read_with_its_limits_in_words() -> None:
    """One that is wrong has none, and says what is."""
    document = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"podSelector": {}}}
    document |= {"apiVersion": API_VERSION, "kind": POLICY}
    document["spec"] |= {"egress": {"rate": {"bits": "10M"}, "exceedAction": "Drop"}}
    assert read_policy(document).head.declared == {"egress": "10Mbit/s, burst 625kB, Drop"}
    document["spec"] |= {"ingress": {"rate": {"bits": "10Mbps"}}}
    head = read_policy(document).head
    assert head.declared == {}
    assert "10M" in head.rejected


def test_what_is_wrong_is_said_at_once(cluster: Cluster) -> None:
    """There is nothing to wait for."""
    cluster.stores.agents.put(agent("a", ready=False))
    cluster.policy(age_s=1)
    assert cluster.written()["Ready"] == "AgentUnavailable"


def test_an_agent_that_cannot_start_is_not_overlooked(cluster: Cluster) -> None:
    """It never spoke, and so nobody knows which pods are selected on its node."""
    cluster.stores.nodes.put(node("b"))
    cluster.stores.agents.put(agent("b", ready=False, age_s=30))
    cluster.policy(age_s=100)
    assert cluster.written()["Ready"] == "Programmed"
    assert 0 < min(cluster.waits) <= 30
    cluster.stores.agents.put(agent("b", ready=False, age_s=100))
    assert cluster.written()["Ready"] == "AgentUnavailable"


def test_a_ready_agent_that_has_never_reported_is_not_known_to_select_nothing(cluster: Cluster) -> None:
    """Its report may be refused, or somebody has deleted it."""
    cluster.stores.nodes.put(node("b"))
    cluster.stores.agents.put(agent("b"))
    cluster.policy(age_s=100)
    assert cluster.written()["Ready"] == "AgentUnavailable"
    cluster.stores.agents.put(agent("b", age_s=10))
    assert cluster.written()["Ready"] == "Programmed"


def test_an_event_is_made_once_while_the_watch_is_behind(api: FakeApi, cluster: Cluster) -> None:
    """The status is written again in each round until the watch tells of it."""
    cluster.policy(age_s=100, rate="1")

    async def make_three() -> None:
        async with Client() as client:
            rounds = StatusReconciler(cluster.stores, cluster.waits.append)
            for _ in range(3):
                await rounds.reconcile(client)

    asyncio.run(make_three())
    assert len(api.seen(lambda seen: seen.method == "POST")) == 1


def test_a_node_that_is_to_have_no_agent_is_not_waited_for(cluster: Cluster) -> None:
    """Nor is one that is down."""
    cluster.stores.nodes.put(node("without"))
    cluster.stores.nodes.put({"metadata": {"name": "down"}})
    cluster.stores.agents.put(agent("down", ready=False))
    cluster.policy(age_s=100)
    assert cluster.written()["Ready"] == "Programmed"


def test_a_refused_status_holds_up_nothing_behind_it(api: FakeApi, cluster: Cluster) -> None:
    """An admission webhook may refuse one policy for ever. It is tried again."""
    cluster.policy(age_s=100, name="rejected")
    cluster.policy(age_s=100)
    api.fail(writes_status("rejected"), 422, "denied by an admission webhook")
    assert cluster.written()["Ready"] == "Programmed"
    assert api.seen(writes_agent_condition)
    assert 0 < min(cluster.waits) <= 1


def test_a_refused_event_holds_up_nothing_behind_it(api: FakeApi, cluster: Cluster) -> None:
    """As in a namespace that is being deleted. The status says the same."""
    cluster.policy(age_s=100, name="invalid", rate="1")
    cluster.policy(age_s=100)
    api.fail(lambda seen: seen.method == "POST", 403, "the namespace is being terminated")
    assert cluster.written()["Ready"] == "Programmed"
    assert api.seen(writes_agent_condition)
    assert len(api.seen(lambda seen: seen.method == "POST")) == 1


def test_a_report_that_cannot_be_written_or_deleted_holds_up_no_other(api: FakeApi, cluster: Cluster) -> None:
    """Dead agents would not be told of."""
    api.put(REPORTS, "gone")
    cluster.stores.reports.put(report("gone"))
    for name in ("b", "c"):
        cluster.stores.nodes.put(node(name))
        cluster.stores.reports.put(report(name))
    api.fail(lambda seen: seen.method == "DELETE", 403)
    api.fail(lambda seen: writes_agent_condition(seen) and seen.path.endswith("/b"), 422)
    cluster.round()
    assert {"a", "b", "c"} <= {seen.path.rpartition("/")[2] for seen in api.seen(writes_agent_condition)}


def requests_until_it_ends(cluster: Cluster) -> int:
    """In a round that raises."""
    before = sum(answers.counts().values())
    with pytest.raises(ApiError):
        cluster.round()
    return sum(answers.counts().values()) - before


def test_an_api_server_that_is_away_is_not_asked_once_for_each_object(api: FakeApi, cluster: Cluster) -> None:
    """Nor is one that is too busy."""
    for name in ("web", "api", "db"):
        cluster.policy(age_s=100, name=name)
        api.fail(lambda seen: seen.method == "PATCH", 503)
    busy = requests_until_it_ends(cluster)
    api.stop()
    try:
        away = requests_until_it_ends(cluster)
    finally:
        api.start()
    assert (busy, away) == (1, 1)
