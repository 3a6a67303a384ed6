"""The writes of the controller, and the nodes that it considers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.fake_api import FakeApi, Seen, list_of
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.connection import Outage, answers
from tokenbucket.apiserver.resources import EVENTS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.heartbeats import Heartbeats
from tokenbucket.controller.objects import Stores, read_agent, read_node, read_policy, read_report
from tokenbucket.controller.reconciler import StatusReconciler
from tokenbucket.core.api.node_report import (
    NodeReport,
    PodCounts,
    PodReport,
    PolicyReport,
    ReasonCount,
    Sync,
    WatchContact,
    to_document,
)
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.status.policy_status import policy_status
from tokenbucket.core.status.summary import PolicyHead
from tokenbucket.errors import ApiError

FIELDS = (
    *("lastSync", "syncPeriodSeconds", "policiesVersion", "watches", "resource", "lastContact", "policies"),
    *("namespace", "name", "uid", "generation", "rejected", "reasons", "pods", "policiesOmitted", "agent"),
    *("features", "conditions", "effective", "action", "overriddenBy", "matched", "programmed", "failed"),
)
"""Names that a report contains."""
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


START_S = 1_800_000_000
"""The Unix time of the controller's clock, by which it judges the first report."""


def rfc3339(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def node(name: str, *, age_s: float = 1000) -> Mapping[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": rfc3339(START_S - age_s)}, "status": READY}


def agent(name: str, *, ready: bool = True, age_s: float = 1000) -> Mapping[str, Any]:
    """Return the agent pod of a node."""
    metadata = {"name": f"agent-{name}", "creationTimestamp": rfc3339(START_S - age_s)}
    return {"metadata": metadata, "spec": {"nodeName": name}, "status": READY if ready else {}}


def report(name: str, pods: int = 1, *, seen: int = 10**9, age_s: float = 0) -> Mapping[str, Any]:
    """Return the report of an agent that has used all policies up to the version ``seen``."""
    entries = (PolicyReport("shop", "web", "web-uid", 1, pods=PodCounts(pods, pods)),) if pods else ()
    written = rfc3339(START_S - age_s)
    sync = Sync(written, 20, seen, (WatchContact("pods", written),))
    document = NodeReport(sync=sync, policies=entries)
    return {
        "metadata": {"name": name, "uid": name, "creationTimestamp": written},
        "status": to_document(document),
    }


def reported(
    *entries: PolicyReport, pods: tuple[PodReport, ...] = (), at_s: float = START_S
) -> Mapping[str, Any]:
    """Return a report of node a with these entries."""
    sync = Sync(rfc3339(at_s), 20, 10**9, (WatchContact("pods", rfc3339(at_s)),))
    document = to_document(NodeReport(sync=sync, policies=entries, pods=pods))
    return {"metadata": {"name": "a", "uid": "a"}, "status": document}


def writes_status(policy: str) -> Callable[[Seen], bool]:
    """Return whether a request writes the status of the policy."""
    return lambda seen: seen.method == "PATCH" and seen.path.endswith(f"/{policy}/status")


def writes_agent_condition(seen: Seen) -> bool:
    """Return whether a request writes the condition of an agent to a report."""
    return seen.method == "PATCH" and seen.path.startswith(REPORTS.path())


class Cluster:
    """The state that a controller sees, and the API server that it writes to."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        api.kinds |= {REPORTS, NODES, EVENTS}
        self.stores = Stores(Store(read_policy), Store(read_report), Store(read_agent), Store(read_node))
        self.waits: list[float] = []
        self.now = 1000.0
        """The monotonic clock of the controller."""
        self.reconciler = self.started()

    def started(
        self, outage: Callable[[], Outage] = Outage, leads: Callable[[], bool] = lambda: True
    ) -> StatusReconciler:
        """Return a new controller."""
        heartbeats = Heartbeats(outage, lambda: self.now, lambda: START_S)
        return StatusReconciler(self.stores, self.waits.append, heartbeats, leads)

    def policy(self, name: str = "web", rate: str = "1M", generation: int = 1, **content: Any) -> int:
        """Write a policy. Return its resource version."""
        document = self.api.put(
            POLICIES,
            name,
            "shop",
            apiVersion=API_VERSION,
            kind=POLICY,
            metadata={"generation": generation},
            spec={"podSelector": {"matchLabels": {"app": "web"}}, "ingress": {"rate": {"bits": rate}}},
            **content,
        )
        self.stores.policies.put(document)
        return int(document["metadata"]["resourceVersion"])

    def round(self) -> None:
        """Run the controller once. Raise the error of the run."""
        self.now += 0.1  # a status may be written again

        async def run() -> None:
            async with Client() as client:
                await self.reconciler.reconcile(client)

        asyncio.run(run())

    def status(self) -> dict[str, Any]:
        """Return the status of the policy after a run. The watch of the controller delivers it."""
        self.round()
        found = self.api.seen(writes_status("web"))
        if not found:
            return {}
        status = json.loads(found[-1].body)["status"]
        known = self.stores.policies.get("shop", "web")
        assert known
        self.policy(generation=known.head.generation, status=status)
        return status

    def written(self) -> dict[str, str]:
        """Return the reason of each condition after a run."""
        return {each["type"]: each["reason"] for each in self.status().get("conditions", ())}

    def ready(self) -> str:
        """Return the reason of the condition Ready after a run."""
        return self.written()["Ready"]

    def message(self) -> str:
        """Return the message of the condition Ready after a run."""
        return self.status()["conditions"][-1]["message"]


@pytest.fixture
def cluster(api: FakeApi) -> Cluster:
    """Return one node whose agent is alive and has reported."""
    found = Cluster(api)
    for store, document in (
        (found.stores.nodes, node("a")),
        (found.stores.agents, agent("a")),
        (found.stores.reports, report("a")),
    ):
        store.put(document)
    return found


def test_a_policy_is_ready_only_if_every_agent_has_used_its_version(cluster: Cluster) -> None:
    """Wait for an agent without an entry: it may be slow, and it may have no selected pod."""
    version = cluster.policy()
    cluster.stores.nodes.put(node("b"))
    cluster.stores.agents.put(agent("b"))
    cluster.stores.reports.put(report("b", pods=0, seen=version - 1))
    assert cluster.ready() == "Updating"
    assert cluster.message() == "1 node (b) has not reported generation 1 yet"
    cluster.stores.reports.put(report("b", pods=0, seen=version))
    assert cluster.ready() == "Programmed"


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GARBAGE)
def test_a_report_of_garbage_affects_no_other_node(api: FakeApi, status: object) -> None:
    """Anybody who may edit TokenBucketNodes, or a compromised agent, can write one."""
    cluster = Cluster(api)
    for name in ("a", "b"):
        cluster.stores.nodes.put(node(name))
        cluster.stores.agents.put(agent(name))
    cluster.stores.reports.put(report("a"))
    cluster.stores.reports.put({"metadata": {"name": "b", "uid": "b"}, "status": status})
    cluster.policy()
    assert cluster.status()["pods"]["programmed"] >= 1


def test_a_policy_that_a_report_has_no_room_for_is_not_ready(cluster: Cluster) -> None:
    """Trust only the policies before the last one, because reports are sorted."""
    cluster.policy()
    document = dict(report("a", pods=0))
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "a"})
    entries = [{"namespace": namespace, "name": "app", "uid": "uid"} for namespace in ("bank", "mall")]
    document["status"] |= {"policies": entries, "policiesOmitted": 3}
    cluster.stores.reports.put(document)
    assert cluster.ready() == "ReportFull"
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "db"}}, spec={"nodeName": "a"})
    cluster.now += 30
    assert cluster.ready() == "NoMatchingPods"
    cluster.policy("older", "1M")
    document["status"]["policies"] = [{**entries[0], "namespace": "shop", "name": "x"}]
    cluster.stores.reports.put(document)
    cluster.now += 10
    assert cluster.ready() == "NoMatchingPods"


def test_a_policy_without_pods_is_ready_only_if_every_agent_has_used_its_version(cluster: Cluster) -> None:
    """Treat the first report after a new CRD like a slow agent."""
    version = cluster.policy()
    cluster.stores.reports.put(report("a", pods=0, seen=version - 1))
    assert cluster.ready() == "Updating"
    cluster.stores.reports.put(report("a", pods=0, seen=version))
    assert cluster.ready() == "NoMatchingPods"


def test_writes_of_the_status_ask_no_agent_for_a_newer_version(cluster: Cluster) -> None:
    """Neither in the same process nor after a restart: agents report changed policies only."""
    version = cluster.policy()
    cluster.stores.reports.put(report("a", seen=version))
    assert cluster.ready() == "Programmed"
    assert cluster.ready() == "Programmed"
    cluster.reconciler = cluster.started()
    assert cluster.ready() == "Programmed"


def test_an_agent_without_heartbeats_makes_its_node_unknown(cluster: Cluster) -> None:
    """Name the node, although its pod stays ready. A heartbeat ends it."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    cluster.now += 49
    assert cluster.ready() == "Programmed"
    assert 0 < min(cluster.waits) <= 1
    cluster.now += 2
    assert cluster.ready() == "AgentUnavailable"
    assert "no agent reports from a" in cluster.message()
    cluster.stores.reports.put(report("a", age_s=-1))
    assert cluster.ready() == "Programmed"


def test_a_report_without_a_time_proves_nothing(cluster: Cluster) -> None:
    """Expect a CustomResourceDefinition that is older than the agent, and so drops the field."""
    cluster.policy()
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "a"})
    document = dict(report("a", pods=0))
    document["status"] = {name: value for name, value in document["status"].items() if name != "lastSync"}
    cluster.stores.reports.put(document)
    cluster.round()
    cluster.now += 49
    cluster.stores.reports.put(document)
    cluster.round()
    cluster.now += 2
    assert cluster.ready() == "AgentUnavailable"


def test_no_report_can_claim_a_period_of_days(cluster: Cluster) -> None:
    """Expect a compromised agent, or a mistake of a later version."""
    cluster.policy()
    document = report("a")
    document["status"]["syncPeriodSeconds"] = 1 << 31
    cluster.stores.reports.put(document)
    assert cluster.ready() == "Programmed"
    cluster.now += 751
    assert cluster.ready() == "AgentUnavailable"


def test_a_recreated_node_is_judged_by_its_own_report(cluster: Cluster) -> None:
    """Expect another node of the same name, whose agent reports under another uid."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    cluster.now += 51
    assert cluster.ready() == "AgentUnavailable"
    cluster.stores.reports.remove({"metadata": {"name": "a", "uid": "a"}})
    document = dict(report("a"))
    document["metadata"] = {**document["metadata"], "uid": "another"}
    cluster.stores.reports.put(document)
    assert cluster.ready() == "Programmed"


def test_a_restarted_controller_does_not_trust_an_old_report(cluster: Cluster) -> None:
    """Judge the first report by its own time: the controller has not seen it arrive."""
    cluster.policy()
    cluster.stores.reports.put(report("a", age_s=60))
    assert cluster.ready() == "AgentUnavailable"


def test_an_agent_whose_watch_is_dead_makes_its_node_unknown(cluster: Cluster) -> None:
    """Name the kind of object: heartbeats alone do not prove that the agent sees new pods."""
    cluster.policy()
    document = report("a")
    document["status"]["watches"][0]["lastContact"] = rfc3339(START_S - 101)
    cluster.stores.reports.put(document)
    assert cluster.ready() == "AgentUnavailable"
    (condition,) = json.loads(cluster.api.seen(writes_agent_condition)[-1].body)["status"]["conditions"]
    assert condition["message"].startswith("pod agent-a has no contact with the API server for pods")


def test_an_outage_of_the_api_server_makes_no_watch_dead(cluster: Cluster) -> None:
    """Expect reports whose watches are not open again yet. After the outage, they have time to be."""
    outage = Outage()
    cluster.policy()
    cluster.reconciler = cluster.started(lambda: outage)
    assert cluster.ready() == "Programmed"
    outage = Outage(cluster.now, cluster.now + 75)
    cluster.now += 80
    for age_s, reason in ((130, "Programmed"), (180, "AgentUnavailable")):
        document = report("a", age_s=-80)
        document["status"]["lastSync"] = rfc3339(START_S + age_s)
        document["status"]["watches"][0]["lastContact"] = rfc3339(START_S)
        cluster.stores.reports.put(document)
        assert cluster.ready() == reason


def test_an_agent_that_restarts_has_a_grace_period(cluster: Cluster) -> None:
    """Keep the status for 90 s, because limits outlive the agent."""
    cluster.policy()
    cluster.stores.agents.put(agent("a", ready=False))
    assert cluster.ready() == "Programmed"
    cluster.now += 60
    assert cluster.ready() == "Programmed"
    cluster.now += 31
    assert cluster.ready() == "AgentUnavailable"


def test_an_outage_of_the_api_server_makes_no_agent_silent(cluster: Cluster) -> None:
    """Begin to count when the controller reaches the API server again: agents could not report either."""
    cluster.policy()
    outage = Outage(cluster.now, cluster.now)
    cluster.reconciler = cluster.started(lambda: outage)
    assert cluster.ready() == "Programmed"
    outage = Outage(cluster.now, cluster.now + 75)
    cluster.now += 75
    assert cluster.ready() == "Programmed"
    cluster.now += 51
    assert cluster.ready() == "AgentUnavailable"
    outage = Outage(cluster.now, cluster.now + 75, 75)
    cluster.now += 75
    assert cluster.ready() == "AgentUnavailable", "it was silent before the outage"


def test_a_short_outage_adds_only_its_own_duration(cluster: Cluster) -> None:
    """One failed request must not give all agents another 50 s."""
    cluster.policy()
    outage = Outage()
    cluster.reconciler = cluster.started(lambda: outage)
    assert cluster.ready() == "Programmed"
    cluster.now += 49
    outage = outage.followed_by(cluster.now - 4, cluster.now)
    cluster.now += 4
    assert cluster.ready() == "Programmed"
    cluster.now += 2
    assert cluster.ready() == "AgentUnavailable"


def test_two_outages_in_a_row_make_no_agent_silent(cluster: Cluster) -> None:
    """Count only the time in which the API server answered: agents wait before they try again."""
    outage = Outage()
    cluster.policy()
    cluster.reconciler = cluster.started(lambda: outage)
    assert cluster.ready() == "Programmed"
    outage = Outage(cluster.now, cluster.now + 75)
    cluster.now += 75 + 15
    assert cluster.ready() == "Programmed"
    outage = outage.followed_by(cluster.now, cluster.now + 1)
    cluster.now += 2
    assert cluster.ready() == "Programmed"
    for _ in range(4):  # an API server that fails now and then gives a dead agent no endless time
        cluster.now += 15
        outage = outage.followed_by(cluster.now - 1, cluster.now)
        cluster.round()
    assert cluster.ready() == "AgentUnavailable"


def test_a_late_report_is_read_again_before_its_node_is_unknown(cluster: Cluster) -> None:
    """Distrust the own watch, which can be dead, and time in which the process did not run."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    cluster.api.put(REPORTS, "a", **report("a", age_s=-1))
    cluster.now += 60
    assert cluster.ready() == "Programmed"
    cluster.now += 60
    assert cluster.ready() == "AgentUnavailable"
    reads = cluster.api.seen(list_of(REPORTS))
    assert [each.query["fieldSelector"] for each in reads] == ["metadata.name=a"] * 2
    for _ in range(3):  # one read confirms it
        cluster.round()
    assert cluster.api.seen(list_of(REPORTS)) == reads


def test_late_reports_are_read_a_few_at_a_time(cluster: Cluster) -> None:
    """Bound the reads of a run, and read all of them soon."""
    cluster.policy()
    cluster.round()
    for number in range(60):
        cluster.stores.reports.put(report(f"b-{number}"))
        cluster.stores.nodes.put(node(f"b-{number}"))
    cluster.round()
    cluster.now += 91
    cluster.round()
    assert len(cluster.api.seen(list_of(REPORTS))) == 50
    assert 1.0 in cluster.waits
    cluster.round()
    assert len(cluster.api.seen(list_of(REPORTS))) == 61


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "AgentUnavailable"), (500, "Programmed"), (503, "Programmed")]
)
def test_reports_that_cannot_be_read_prove_nothing(cluster: Cluster, status: int, reason: str) -> None:
    """Make the node unknown without the right to read. Change no status while the server is away."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    cluster.now += 60
    cluster.api.fail(list_of(REPORTS), status)
    with contextlib.suppress(ApiError):
        cluster.round()
    written = json.loads(cluster.api.seen(writes_status("web"))[-1].body)["status"]
    assert written["conditions"][-1]["reason"] == reason


def test_a_restarted_controller_does_not_depend_on_the_clocks_of_nodes(cluster: Cluster) -> None:
    """Judge a first report by the time at which the API server has stored it."""
    cluster.policy()
    document = dict(report("a", age_s=3600))
    document["metadata"] = {**document["metadata"], "creationTimestamp": rfc3339(START_S - 5)}
    cluster.stores.reports.put(document)
    assert cluster.ready() == "Programmed"


@pytest.mark.parametrize(("before_s", "left_s"), [(80, 50), (10, 80)])
def test_an_outage_of_the_api_server_gives_a_restart_no_second_grace_period(
    cluster: Cluster, before_s: int, left_s: int
) -> None:
    """After it, the agent has the rest of its 90 s, and at least the time that every agent has."""
    cluster.policy()
    outage = Outage()
    cluster.reconciler = cluster.started(lambda: outage)
    assert cluster.ready() == "Programmed"
    cluster.stores.agents.put(agent("a", ready=False))
    cluster.now += before_s
    assert cluster.ready() == "Programmed"
    outage = Outage(cluster.now, cluster.now + 600)
    cluster.now += 600 + left_s - 1
    assert cluster.ready() == "Programmed"
    cluster.now += 2
    assert cluster.ready() == "AgentUnavailable"


def test_bad_news_is_written_first(cluster: Cluster) -> None:
    """Let other numbers of a policy wait for a policy that is not ready any more."""
    names = ("api", "web")
    for name in names:
        cluster.policy(name)
    entries = [PolicyReport("shop", name, f"{name}-uid", 1, pods=PodCounts(1, 1)) for name in names]
    cluster.stores.reports.put(reported(*entries))
    cluster.round()
    for seen in cluster.api.seen(lambda seen: seen.path.endswith("/status")):
        name = seen.path.split("/")[-2]
        cluster.policy(name, status=json.loads(seen.body)["status"])
    cluster.round()
    before = len(cluster.api.seen(lambda seen: seen.path.endswith("/status")))
    entries = [replace(entries[0], pods=PodCounts(2, 2)), replace(entries[1], pods=PodCounts(1, failed=1))]
    cluster.stores.reports.put(reported(*entries))
    cluster.now += 10
    cluster.round()
    written = cluster.api.seen(lambda seen: seen.path.endswith("/status"))[before:]
    assert [seen.path.split("/")[-2] for seen in written] == ["web", "api"]


def test_a_status_is_computed_only_for_changed_inputs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a heartbeat, nor while the status waits for the budget of writes."""
    computed: list[object] = []

    def compute(head: PolicyHead, *rest: Any) -> dict[str, Any]:
        computed.append(head)
        return policy_status(head, *rest)

    monkeypatch.setattr("tokenbucket.controller.reconciler.policy_status", compute)
    cluster.policy(generation=1)
    assert cluster.ready() == "Programmed"
    cluster.round()  # with the status that was written
    known = len(computed)
    for age_s in (-1, -2, -3):
        cluster.stores.reports.put(report("a", age_s=age_s))
        cluster.round()
    assert len(computed) == known
    cluster.stores.nodes.put(node("b"))
    cluster.stores.reports.put(report("b", pods=0))  # becomes silent, and has no pod of the policy
    cluster.round()
    cluster.now += 91
    cluster.stores.reports.put(report("a", age_s=-4))
    cluster.round()
    assert cluster.api.seen(list_of(PODS))
    assert len(computed) == known
    cluster.reconciler._budget.spend(10**6, cluster.now)
    cluster.stores.reports.put(report("a", pods=2))
    for _ in range(3):
        cluster.round()
    assert len(computed) == known + 1
    assert len(cluster.api.seen(writes_status("web"))) == 1


def test_a_run_yields_to_the_probes_after_each_policy(cluster: Cluster) -> None:
    """Yield also if no status changes: to compare thousands of pods takes time."""
    cluster.stores.reports.put(report("a", pods=0))
    for number in range(50):
        cluster.policy(f"web-{number}")
    cluster.reconciler = cluster.started(leads=lambda: False)  # writes yield too
    cluster.round()

    async def turns() -> int:
        """Return the number of turns of another task during a run."""
        number = 0
        async with Client() as client:
            run = asyncio.create_task(cluster.reconciler.reconcile(client))
            while not run.done():
                number += 1
                await asyncio.sleep(0)
            await run
        return number

    assert asyncio.run(turns()) >= 50
    assert not cluster.api.seen(lambda _: True)


def test_the_status_names_the_pods_of_the_last_report(cluster: Cluster) -> None:
    """Follow pods that change while their number stays the same."""
    cluster.policy()
    entry = PolicyReport("shop", "web", "web-uid", 1, pods=PodCounts(1, failed=1))
    entry = replace(entry, reasons=(ReasonCount("NoInterface", 1, "web: has none"),))
    for name in ("web-1", "web-2"):
        failed = PodReport("shop", name, "web", "ingress", "NoInterface", "web: has none")
        other = PodReport("shop", "db-1", "db", "ingress", "NoInterface", "db: has none")
        cluster.stores.reports.put(reported(entry, pods=(failed, other)))
        cluster.now += 10
        assert [problem["pod"] for problem in cluster.status()["problems"]] == [name]
        cluster.round()  # with the status that was written
    events = [json.loads(seen.body) for seen in cluster.api.seen(lambda seen: seen.method == "POST")]
    assert {(each["type"], each["reason"], each["involvedObject"]["name"]) for each in events} == {
        ("Warning", "NoInterface", "web"),
        ("Warning", "Failed", "web"),
    }


def test_an_edit_counts_the_pods_that_stay_limited(cluster: Cluster) -> None:
    """Show that the policy is updating, with the pods of the earlier generation."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    version = cluster.policy(rate="2M", generation=2)
    cluster.stores.reports.put(report("a", seen=version - 1))
    status = cluster.status()
    assert status["conditions"][-1]["reason"] == "Updating"
    assert status["pods"]["summary"] == "1/1"
    assert status["rates"] == {"ingress": "2Mbit/s"}


def test_a_policy_is_read_with_its_limits_as_text() -> None:
    """Read an invalid policy with its problem and without limits."""
    document = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"podSelector": {}}}
    document |= {"apiVersion": API_VERSION, "kind": POLICY}
    document["spec"] |= {"egress": {"rate": {"bits": "10M"}, "exceedAction": "Drop"}}
    assert read_policy(document).head.declared == {"egress": "10Mbit/s, burst 625kB, Drop"}
    document["spec"] |= {"ingress": {"rate": {"bits": "10Mbps"}}}
    head = read_policy(document).head
    assert head.declared == {}
    assert "10M" in head.rejected


@pytest.mark.parametrize(
    ("namespace", "label", "is_rejected"),
    [
        ("shop", "", False),
        ("kube-system", "", True),
        ("kube-system", "false", True),
        ("kube-system", "true", False),
    ],
)
def test_the_controller_rejects_policies_in_protected_namespaces(
    namespace: str, label: str, *, is_rejected: bool
) -> None:
    """Agents report them only if their node has pods of the namespace."""
    metadata = {"namespace": namespace, "labels": {"tokenbucket.dev/allow-protected": label}}
    rejected = read_policy({"metadata": metadata}, {"kube-system"}).head.rejected
    assert ("namespace kube-system is protected" in rejected) is is_rejected


def test_an_agent_that_never_reports_makes_its_node_unknown(cluster: Cluster) -> None:
    """Wait for a new pod first. It does not matter whether the pod is ready."""
    cluster.policy()
    cluster.stores.nodes.put(node("b"))
    for ready in (False, True):
        cluster.stores.agents.put(agent("b", ready=ready, age_s=30))
        assert cluster.ready() == "Programmed"
        assert 0 < min(cluster.waits) <= 30
        cluster.api.fail(list_of(PODS), 403)
        cluster.stores.agents.put(agent("b", ready=ready, age_s=100))
        assert cluster.ready() == "AgentUnavailable"


def test_an_agent_pod_that_is_not_scheduled_counts_for_its_node(cluster: Cluster) -> None:
    """Read the node from the affinity that the DaemonSet controller sets."""
    cluster.policy()
    cluster.stores.nodes.put(node("b"))
    field = {"key": "metadata.name", "operator": "In", "values": ["b"]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    pod = {
        "metadata": {"name": "agent-b", "creationTimestamp": rfc3339(START_S - 100)},
        "spec": {"affinity": affinity},
    }
    cluster.stores.agents.put(pod)
    cluster.api.put(PODS, "web-1", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "b"})
    assert cluster.ready() == "AgentUnavailable"
    assert "no agent reports from b" in cluster.message()


@pytest.mark.parametrize(
    ("namespace", "labels", "reason"),
    [
        ("shop", {"app": "web"}, "AgentUnavailable"),
        ("shop", {"app": "db"}, "Programmed"),
        ("other", {"app": "web"}, "Programmed"),
    ],
)
def test_a_node_without_an_agent_affects_only_policies_that_select_its_pods(
    cluster: Cluster, namespace: str, labels: dict[str, str], reason: str
) -> None:
    """Leave all other policies of the cluster as they are."""
    cluster.policy()
    cluster.stores.nodes.put(node("b"))
    cluster.stores.agents.put(agent("b", ready=False))
    cluster.api.put(PODS, "pod", namespace, metadata={"labels": labels}, spec={"nodeName": "b"})
    assert cluster.ready() == reason


def test_an_event_is_created_once_while_the_watch_is_behind(api: FakeApi, cluster: Cluster) -> None:
    """Write the status again in each run until the watch delivers it."""
    cluster.policy(rate="1")
    for _ in range(3):
        cluster.round()
    assert len(api.seen(lambda seen: seen.method == "POST")) == 1


def test_a_node_that_is_down_is_not_waited_for(cluster: Cluster) -> None:
    """No pod starts there."""
    cluster.stores.nodes.put({"metadata": {"name": "down"}})
    cluster.stores.agents.put(agent("down", ready=False))
    cluster.policy()
    assert cluster.ready() == "Programmed"


@pytest.mark.parametrize(("labels", "reason"), [("web", "AgentUnavailable"), ("db", "Programmed")])
def test_a_node_that_never_had_an_agent_pod_affects_only_policies_that_select_its_pods(
    cluster: Cluster, labels: str, reason: str
) -> None:
    """A selector, a quota or a taint can keep agents away. A new node has time for its first report."""
    cluster.policy()
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": labels}}, spec={"nodeName": "b"})
    cluster.stores.nodes.put(node("b", age_s=30))
    assert cluster.ready() == "Programmed"
    assert 0 < min(cluster.waits) <= 30
    cluster.stores.nodes.put(node("b", age_s=60))
    assert cluster.ready() == reason
    cluster.stores.reports.put(report("b"))
    assert cluster.ready() == "Programmed"


def test_agent_pods_that_are_replaced_again_and_again_give_a_node_no_endless_time(cluster: Cluster) -> None:
    """The kubelet rejects pods without room, and the DaemonSet replaces each at once."""
    cluster.policy()
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "b"})
    cluster.stores.nodes.put(node("b"))
    for reason in ("Programmed", "AgentUnavailable"):
        cluster.stores.agents.put(agent("b", ready=False, age_s=1))
        assert cluster.ready() == reason
        cluster.now += 60


def test_new_pods_on_a_node_without_an_agent_are_found(cluster: Cluster) -> None:
    """Ask for a run: nothing else reports a change there."""
    cluster.policy()
    cluster.stores.nodes.put(node("b"))
    assert cluster.ready() == "Programmed"
    cluster.waits.clear()
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "b"})
    cluster.now += 30
    cluster.stores.reports.put(report("a", age_s=-1))
    assert cluster.ready() == "AgentUnavailable"
    assert 30.0 in cluster.waits


def test_many_silent_nodes_change_no_policy_without_pods_there(cluster: Cluster) -> None:
    """Read their pods in several runs. Until then, no policy becomes ready."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    for number in range(30):
        cluster.stores.nodes.put(node(f"b-{number}"))
    cluster.policy("new")
    for writes in (0, 1):
        assert cluster.ready() == "Programmed"
        assert len(cluster.api.seen(writes_status("new"))) == writes
    assert 1.0 in cluster.waits


def lists_pods(seen: Seen) -> bool:
    """Return whether a request lists pods, of a namespace or of all."""
    return seen.method == "GET" and seen.path.endswith("/pods")


@pytest.fixture
def virtual(cluster: Cluster) -> Cluster:
    """Add 1,000 nodes that run no agent, with one pod each, of another namespace than the policies."""
    for number in range(1000):
        cluster.stores.nodes.put(node(f"virtual-{number}"))
        cluster.api.put(PODS, f"pod-{number}", "batch", spec={"nodeName": f"virtual-{number}"})
    return cluster


def test_thousands_of_nodes_without_agents_delay_no_policy(virtual: Cluster) -> None:
    """Read the pods of the namespace of the policy together, in pages, at the start of a controller."""
    for number in range(600):
        virtual.api.put(PODS, f"web-{number}", "shop", spec={"nodeName": f"virtual-{number}"})
    virtual.policy()
    assert virtual.ready() == "Programmed"
    lists = virtual.api.seen(lists_pods)
    assert len(lists) == 3
    assert {each.query["limit"] for each in lists} == {"250"}
    assert virtual.ready() == "Programmed"
    assert len(virtual.api.seen(lists_pods)) == 3
    virtual.api.put(
        PODS, "web-7", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "virtual-7"}
    )
    virtual.now += 30
    virtual.stores.reports.put(report("a", age_s=-30))
    assert virtual.ready() == "AgentUnavailable"
    assert "virtual-7" in virtual.message()


def test_one_more_silent_node_among_thousands_is_read_alone(virtual: Cluster) -> None:
    """Ask for its pods only. They were not kept before, because only pods on silent nodes are."""
    virtual.policy()
    virtual.api.put(PODS, "web", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "b"})
    virtual.stores.nodes.put(node("b"))
    virtual.stores.agents.put(agent("b"))
    virtual.stores.reports.put(report("b", age_s=0))
    assert virtual.ready() == "Programmed"
    before = len(virtual.api.seen(lists_pods))
    virtual.stores.reports.remove({"metadata": {"name": "b"}})
    virtual.now += 1
    virtual.stores.reports.put(report("a", age_s=-1))
    assert virtual.ready() == "AgentUnavailable"
    [read] = virtual.api.seen(lists_pods)[before:]
    assert read.query["fieldSelector"].startswith("spec.nodeName=b,")


def test_a_namespace_whose_pods_are_not_read_yet_delays_only_its_own_policies(virtual: Cluster) -> None:
    """Read at most 20 pages in one run."""
    for number in range(30):
        metadata = {"namespace": f"shop-{number:02}", "name": "web", "uid": f"web-{number}", "generation": 1}
        virtual.stores.policies.put(
            {
                "apiVersion": API_VERSION,
                "kind": POLICY,
                "metadata": metadata,
                "spec": {"podSelector": {}, "ingress": {"rate": {"bits": "1M"}}},
            }
        )

    def written() -> set[str]:
        seen = virtual.api.seen(writes_status("web"))
        return {each.path.split("/")[-4] for each in seen}

    virtual.round()
    assert written() == {f"shop-{number:02}" for number in range(20)}
    virtual.round()
    assert written() == {f"shop-{number:02}" for number in range(30)}


def test_nodes_that_have_agents_again_are_forgotten(virtual: Cluster) -> None:
    """Read the remaining nodes one by one."""
    virtual.policy()
    assert virtual.ready() == "Programmed"
    for number in range(999):
        virtual.stores.nodes.remove({"metadata": {"name": f"virtual-{number}"}})
    before = len(virtual.api.seen(lists_pods))
    assert virtual.ready() == "Programmed"
    [read] = virtual.api.seen(lists_pods)[before:]
    assert read.query["fieldSelector"].startswith("spec.nodeName=virtual-999,")


def test_pods_that_must_not_be_read_make_their_node_unknown(cluster: Cluster) -> None:
    """Write the status at once: bad news must not wait."""
    cluster.policy()
    cluster.stores.nodes.put(node("b"))
    cluster.api.fail(list_of(PODS), 403)
    assert cluster.ready() == "AgentUnavailable"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_one_error_of_the_api_server_makes_no_node_unknown(cluster: Cluster, status: int) -> None:
    """Keep the status of a ready policy, and let no policy become ready until the next read."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    cluster.stores.nodes.put(node("b"))
    cluster.policy("new")
    cluster.api.fail(list_of(PODS), status)
    for writes in (0, 1):
        assert cluster.ready() == "Programmed"
        assert len(cluster.api.seen(writes_status("new"))) == writes


@pytest.mark.parametrize(("status", "reason"), [(500, "Programmed"), (403, "AgentUnavailable")])
def test_known_pods_of_a_silent_node_stay_known_while_the_api_server_is_overloaded(
    api: FakeApi, cluster: Cluster, status: int, reason: str
) -> None:
    """Change no policy without pods there because of one error."""
    cluster.policy()
    cluster.stores.nodes.put(node("b"))
    assert cluster.ready() == "Programmed"
    cluster.now += 30
    cluster.stores.reports.put(report("a", age_s=-30))
    api.fail(list_of(PODS), status)
    assert cluster.ready() == reason


def test_a_report_that_omits_all_policies_ends_no_run(cluster: Cluster) -> None:
    """Read what a false report claims: there is no last policy."""
    cluster.policy()
    document = dict(report("a", pods=0))
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "a"})
    document["status"] |= {"policies": [], "policiesOmitted": 1}
    cluster.stores.reports.put(document)
    assert cluster.ready() == "ReportFull"


def test_an_omitted_policy_that_is_off_is_off(cluster: Cluster) -> None:
    """Wait for no room in a report that would contain nothing."""
    cluster.policy()
    policy = cluster.api.put(
        POLICIES,
        "web",
        "shop",
        apiVersion=API_VERSION,
        kind=POLICY,
        metadata={"generation": 2},
        spec={"podSelector": {}, "mode": "Off", "ingress": {"rate": {"bits": "1M"}}},
    )
    cluster.stores.policies.put(policy)
    document = dict(report("a", pods=0))
    cluster.api.put(PODS, "pod", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "a"})
    document["status"] |= {"policies": [], "policiesOmitted": 1}
    cluster.stores.reports.put(document)
    assert cluster.ready() == "Off"


def created_events(api: FakeApi) -> list[str]:
    """Return the reasons of all events."""
    return [json.loads(seen.body)["reason"] for seen in api.seen(lambda seen: seen.method == "POST")]


def test_unknown_and_failed_policies_cause_events(api: FakeApi, cluster: Cluster) -> None:
    """A pod without a limit must not hide behind a larger number of degraded pods."""
    cluster.policy()
    assert cluster.ready() == "Programmed"
    cluster.now += 60
    assert cluster.ready() == "AgentUnavailable"
    entry = PolicyReport("shop", "web", "web-uid", 1, pods=PodCounts(15, 10, degraded=10))
    entry = replace(entry, reasons=(ReasonCount("NoFq", 10, "no fq"),))
    for pods, more in (
        (PodCounts(15, 15, degraded=10), ()),
        (PodCounts(15, 10, degraded=10, failed=5), (5,)),
    ):
        reasons = (*entry.reasons, *(ReasonCount("NoFreeSlot", number, "full") for number in more))
        document = dict(reported(replace(entry, pods=pods, reasons=reasons)))
        document["status"] |= {"lastSync": rfc3339(START_S + len(more) + 1)}
        cluster.stores.reports.put(document)
        cluster.ready()
    assert created_events(api) == ["AgentUnavailable", "NoFq", "NoFreeSlot", "Failed"]


def test_an_event_that_is_one_too_many_is_created_later(api: FakeApi, cluster: Cluster) -> None:
    """Create none for a condition that is good again by then."""
    cluster.policy()
    for pause_s, failed, events in (
        (0, True, 1),
        (10, False, 1),
        (10, True, 1),
        (290, True, 2),
        (400, True, 2),
        (10, False, 2),
        (10, True, 3),
        (10, False, 3),
        (10, True, 3),
        (10, False, 3),
        (300, False, 3),
    ):
        cluster.now += pause_s
        entry = PolicyReport("shop", "web", "web-uid", 1, pods=PodCounts(1, not failed, failed=int(failed)))
        cluster.stores.reports.put(reported(entry, at_s=START_S + cluster.now))
        cluster.ready()
        assert len(created_events(api)) == events, pause_s
    assert set(created_events(api)) == {"Failed"}


def test_an_event_without_an_answer_is_created_later(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do not write the status before: it would hide that the event is missing."""
    cluster.policy(rate="1")

    async def lost(*_: object) -> None:
        raise ApiError("POST", EVENTS.path(), 0, "no answer")

    with monkeypatch.context() as patched, pytest.raises(ApiError):
        patched.setattr(Client, "create", lost)
        cluster.round()
    assert not api.seen(writes_status("web"))
    assert cluster.ready() == "Invalid"
    assert created_events(api) == ["Invalid"]


def test_a_restored_storage_asks_no_agent_for_a_version_of_before(cluster: Cluster) -> None:
    """The versions of the storage start again at a lower number."""
    document = {"apiVersion": API_VERSION, "kind": POLICY, "spec": {"podSelector": {}}}
    document["spec"] |= {"ingress": {"rate": {"bits": "1M"}}}
    metadata = {"name": "web", "namespace": "shop", "uid": "web-uid", "generation": 1}
    store = cluster.stores.policies
    store.replace([document | {"metadata": {**metadata, "resourceVersion": "1000"}}], 1000)
    cluster.stores.reports.put(report("a", pods=0, seen=999))
    assert cluster.written()["Ready"] == "Updating"
    assert store.restored(50, 1000)
    store.replace([document | {"metadata": {**metadata, "resourceVersion": "40"}}], 50)
    cluster.stores.reports.put(report("a", pods=0, seen=50, age_s=-1))
    cluster.now += 10
    assert cluster.written()["Ready"] == "NoMatchingPods"


@pytest.mark.parametrize("status", [422, 500, 504])
def test_a_rejected_status_does_not_block_others(api: FakeApi, cluster: Cluster, status: int) -> None:
    """Retry it, because an admission webhook can reject one policy for long, or not answer."""
    cluster.policy("rejected")
    cluster.policy()
    api.fail(writes_status("rejected"), status, "denied by an admission webhook")
    assert cluster.written()["Ready"] == "Programmed"
    assert api.seen(writes_agent_condition)
    assert 0 < min(cluster.waits) <= 1


def test_a_rejected_event_does_not_block_others(api: FakeApi, cluster: Cluster) -> None:
    """Expect this in a namespace that is being deleted. The status has the same message."""
    cluster.policy("invalid", rate="1")
    cluster.policy()
    api.fail(lambda seen: seen.method == "POST", 403, "the namespace is being terminated")
    assert cluster.written()["Ready"] == "Programmed"
    assert api.seen(writes_agent_condition)
    assert len(api.seen(lambda seen: seen.method == "POST")) == 1


def test_a_report_that_cannot_be_written_or_deleted_does_not_block_others(
    api: FakeApi, cluster: Cluster
) -> None:
    """Report dead agents of other nodes."""
    api.put(REPORTS, "gone")
    cluster.stores.reports.put(report("gone"))
    for name in ("b", "c"):
        cluster.stores.nodes.put(node(name))
        cluster.stores.reports.put(report(name))
    api.fail(lambda seen: seen.method == "DELETE", 403)
    api.fail(lambda seen: writes_agent_condition(seen) and seen.path.endswith("/b"), 422)
    cluster.round()
    assert {"a", "b", "c"} <= {seen.path.rpartition("/")[2] for seen in api.seen(writes_agent_condition)}


def test_a_condition_of_another_program_causes_no_writes(api: FakeApi, cluster: Cluster) -> None:
    """Keep the condition of another program in a report."""
    cluster.policy()
    cluster.round()
    written = json.loads(api.seen(writes_agent_condition)[-1].body)["status"]["conditions"]
    other = {**written[0], "type": "Other"}
    document = dict(report("a"))
    document["status"] = {**document["status"], "conditions": [*written, other]}
    cluster.stores.reports.put(document)
    writes = len(api.seen(writes_agent_condition))
    cluster.round()
    assert len(api.seen(writes_agent_condition)) == writes


def test_a_slow_api_server_does_not_delay_bad_news(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leave writes to later runs: of an API server that takes a second each, thousands would take an hour."""
    names = [f"node-{number}" for number in range(20)]
    for number, name in enumerate(names):
        cluster.policy(f"policy-{number}")
        cluster.stores.nodes.put(node(name))
        cluster.stores.reports.put(report(name, pods=0))
    apply = Client.apply

    async def slow(*args: Any) -> Any:
        cluster.now += 1
        return await apply(*args)

    monkeypatch.setattr(Client, "apply", slow)
    cluster.round()
    assert len(api.seen(writes_agent_condition)) == 5
    assert len(api.seen(lambda seen: seen.path.endswith("/status"))) == 5
    assert min(cluster.waits) <= 0.1
    [ready] = api.seen(writes_status("policy-0"))
    cluster.policy("policy-0", rate="1", generation=2, status=json.loads(ready.body)["status"])
    cluster.round()
    assert len(api.seen(writes_status("policy-0"))) == 2


def test_a_controller_that_leads_no_more_ends_its_writes(api: FakeApi, cluster: Cluster) -> None:
    """Stop in the middle of a run: another process can become the leader in the meantime."""
    api.put(REPORTS, "gone")
    cluster.stores.reports.put(report("gone"))
    for name in ("web", "api", "db"):
        cluster.policy(name)
    leads = iter([True, True])
    cluster.reconciler = cluster.started(leads=lambda: next(leads, False))
    cluster.round()
    writes = [f"{seen.method} {seen.path}" for seen in api.seen(lambda seen: seen.method != "GET")]
    assert len(writes) == 2, writes


def requests_until_it_ends(cluster: Cluster) -> int:
    """Return the requests of a run that raises."""
    before = sum(answers.counts().values())
    with pytest.raises(ApiError):
        cluster.round()
    return sum(answers.counts().values()) - before


def test_a_run_ends_at_the_first_request_that_the_api_server_does_not_answer(
    api: FakeApi, cluster: Cluster
) -> None:
    """End it too if the API server is overloaded."""
    for name in ("web", "api", "db"):
        cluster.policy(name)
        api.fail(lambda seen: seen.method == "PATCH", 503)
    busy = requests_until_it_ends(cluster)
    api.stop()
    try:
        away = requests_until_it_ends(cluster)
    finally:
        api.start()
    assert (busy, away) == (1, 1)
