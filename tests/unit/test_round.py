"""When the controller writes a status, and which nodes it takes into account."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tokenbucket.controller.objects import read_agent, read_node, read_policy, read_report
from tokenbucket.controller.round import Rounds, Stores
from tokenbucket.core.parse import API_VERSION, POLICY
from tokenbucket.core.report import NodeReport, PolicyReport, to_document
from tokenbucket.kubernetes.client import Client
from tokenbucket.kubernetes.resources import EVENTS, NODES, POLICIES, REPORTS
from tokenbucket.kubernetes.store import Store

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def node(name: str) -> Mapping[str, Any]:
    return {"metadata": {"name": name}, "status": READY}


def agent(name: str, *, ready: bool = True, age_s: float = 1000) -> Mapping[str, Any]:
    """The pod of the agent of a node."""
    metadata = {"name": f"agent-{name}", "creationTimestamp": ago(age_s)}
    return {"metadata": metadata, "spec": {"nodeName": name}, "status": READY if ready else {}}


def report(name: str) -> Mapping[str, Any]:
    """A node with the policy in force on one pod."""
    said = PolicyReport("shop", "web", "web-uid", 1, matched=1, programmed=1)
    metadata = {"name": name, "uid": name, "creationTimestamp": ago(0)}
    return {"metadata": metadata, "status": to_document(NodeReport(policies=(said,)))}


class Cluster:
    """What a controller sees, and the API server that it writes to."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        api.kinds |= {REPORTS, NODES, EVENTS}
        self.stores = Stores(Store(read_policy), Store(read_report), Store(read_agent), Store(read_node))
        self.waits: list[float] = []

    def policy(self, age_s: float) -> None:
        """One that was written so long ago."""
        limit = {"rate": {"bits": "1M"}}
        document = self._api.put(
            POLICIES,
            "web",
            "shop",
            apiVersion=API_VERSION,
            kind=POLICY,
            metadata={"generation": 1, "creationTimestamp": ago(age_s)},
            spec={"podSelector": {}, "ingress": limit},
        )
        self.stores.policies.put(document)

    def written(self) -> dict[str, str]:
        """After a round, the reason of each condition that was written, if any were."""

        async def make() -> None:
            async with Client() as client:
                await Rounds(self.stores, self.waits.append).make(client)

        asyncio.run(make())
        told = self._api.seen(lambda seen: seen.method == "PATCH" and seen.path.endswith("/web/status"))
        conditions = json.loads(told[-1].body)["status"]["conditions"] if told else []
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


def test_a_node_that_is_to_have_no_agent_is_not_waited_for(cluster: Cluster) -> None:
    """Nor is one that is down."""
    cluster.stores.nodes.put(node("without"))
    cluster.stores.nodes.put({"metadata": {"name": "down"}})
    cluster.stores.agents.put(agent("down", ready=False))
    cluster.policy(age_s=100)
    assert cluster.written()["Ready"] == "Programmed"
