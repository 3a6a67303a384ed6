"""The reports of an agent to the API server and the kubelet."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.unit.fake_api import RESET, FakeApi, Seen, list_of, watch_of
from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.agent.options import AgentOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.report import _ranked
from tokenbucket.agent.reporter import Reporter
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.connection import answers
from tokenbucket.apiserver.resources import CONFIG_MAPS, EVENTS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.apiserver.watch import Watch
from tokenbucket.core.api.annotations import read_annotations
from tokenbucket.core.api.node_report import PodReport
from tokenbucket.core.api.parse import API_VERSION, parse_policy
from tokenbucket.core.api.parse import POLICY as POLICY_KIND
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import desired
from tokenbucket.core.planning.pod_limits import PodInterfaces
from tokenbucket.core.status.node_status import DesiredInput, NodeState, Outcome

WAITS = tuple(
    Pod(PodId("shop", f"web-{number}"), {}, frozenset({IPv4Address("10.0.0.2")}), waits=True)
    for number in range(2)
)

POLICY = {
    "apiVersion": API_VERSION,
    "kind": POLICY_KIND,
    "spec": {"podSelector": {}, "ingress": {"rate": {"bits": "1M"}}},
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def source(api: FakeApi, tmp_path: Path) -> Iterator[ClusterSource]:
    """Return the source of an agent."""
    api.kinds |= {REPORTS}
    api.put(REPORTS, "node")
    options = AgentOptions(
        node="node",
        namespace="tokenbucket",
        pod="agent",
        config_map="switch",
        readiness_gates=True,
        report_spread_s=0.01,
        probe_port=free_port(),
        cni_results=tmp_path / "results",
    )
    with closing(ClusterSource(options)) as source:
        yield source


@pytest.fixture
def stats() -> ReconcileStats:
    """Return the result of a run on a node with pods that wait for their readiness gate."""
    return ReconcileStats(state=NodeState(DesiredInput(pods=WAITS)))


@pytest.fixture
def reporter(source: ClusterSource, stats: ReconcileStats) -> Iterator[Reporter]:
    reporter = Reporter(source, stats)
    yield reporter
    reporter.stop()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def writes(kind: str) -> Callable[[Seen], bool]:
    """Return whether a request writes one of these."""
    return lambda seen: seen.method == "PATCH" and f"/{kind}/" in seen.path


def is_ready(api: FakeApi, pod: str) -> bool:
    """Return whether the readiness gate of a pod is open."""
    return any(
        f"/{pod}/" in seen.path and '"status": "True"' in seen.body for seen in api.seen(writes("pods"))
    )


def test_a_rejected_report_does_not_keep_pods_from_becoming_ready(
    api: FakeApi, stats: ReconcileStats, reporter: Reporter
) -> None:
    """Keep the pods independent of each other too."""
    for pod in WAITS:
        api.put(PODS, pod.id.name, "shop")
    for _ in range(100):
        api.fail(writes("tokenbucketnodes"), 422, "status.pods[0].policy: too long")
        api.fail(lambda seen: writes("pods")(seen) and "/web-0/" in seen.path, 403)
    reporter.start()
    until(lambda: (stats.on_change(), is_ready(api, "web-1"))[1])
    assert api.seen(writes("tokenbucketnodes"))


def test_a_rejected_report_is_retried(api: FakeApi, stats: ReconcileStats, reporter: Reporter) -> None:
    """Retry it without a change of the node."""
    api.fail(writes("tokenbucketnodes"), 500)
    reporter.start()
    until(lambda: (stats.on_change(), len(api.seen(writes("tokenbucketnodes"))) > 0)[1])
    until(lambda: reporter.reported_at_s)


def test_an_agent_is_ready_when_the_api_server_accepts_its_report(
    api: FakeApi,
    source: ClusterSource,
    stats: ReconcileStats,
    reporter: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keep a version whose reports are rejected from replacing a working one."""
    taken = threading.Event()
    for _ in range(100):
        api.fail(lambda seen: not taken.is_set() and writes("tokenbucketnodes")(seen), 403, "denied")
    reporter.start()
    until(lambda: (stats.on_change(), api.seen(writes("tokenbucketnodes")))[1])
    assert not reporter.ready
    taken.set()
    source.last_polled_at = time.monotonic()
    until(lambda: reporter.reported_at_s)
    monkeypatch.setattr(Watch, "alive", True)
    assert reporter.ready


def report(seen: Seen) -> dict[str, Any]:
    """Return the report that a request writes."""
    return dict(json.loads(seen.body)["status"])


def reports(api: FakeApi) -> list[dict[str, Any]]:
    """Return all reports that were written, in order."""
    return [report(seen) for seen in api.seen(writes("tokenbucketnodes"))]


@pytest.fixture
def reported(api: FakeApi, source: ClusterSource, stats: ReconcileStats, reporter: Reporter) -> Reporter:
    """Return a reporter whose watches work and whose report was accepted and delivered by its own watch."""
    api.kinds |= {NODES, CONFIG_MAPS}
    source.start()
    reporter.start()
    until(lambda: (stats.on_change(), reporter.reported_at_s)[1])
    until(lambda: source.informers.synced and api.watched(REPORTS))
    return reporter


def test_a_report_that_is_deleted_is_written_again_at_once(api: FakeApi, reported: Reporter) -> None:
    """Do not wait for the next regular report."""
    before = len(reports(api))
    api.delete(REPORTS, "node")
    until(lambda: len(reports(api)) > before)
    assert not reported._report.due


def test_a_report_that_is_edited_is_written_again_at_once(api: FakeApi, reported: Reporter) -> None:
    """Repair it by an apply, which takes back all fields of the agent."""
    before = len(reports(api))
    api.put(REPORTS, "node", status={"limits": 99})
    until(lambda: len(reports(api)) > before)
    assert not reported._report.due


def merging(api: FakeApi, name: str) -> Callable[[Seen], web.Response]:
    """Return the answers of an API server where an apply leaves the fields of others."""
    before = api._answer

    def answer(seen: Seen) -> web.Response:
        if seen.method != "PATCH" or not seen.path.endswith(f"/{name}"):
            return before(seen)
        stored = api._objects[REPORTS, "", name].get("status", {})
        return web.json_response(
            api.put(REPORTS, name, status=merged(stored, json.loads(seen.body)["status"]))
        )

    return answer


def merged(stored: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a JSON merge patch."""
    nested = {
        name: merged(stored.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in patch.items()
    }
    return {name: value for name, value in (stored | nested).items() if value is not None}


def lasting(status: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that do not change with each write."""
    changing = {"lastSync", "watches", "policiesVersion"}
    return {name: value for name, value in status.items() if name not in changing}


@pytest.mark.parametrize(
    "foreign",
    [
        {"problem": "the kernel is on fire"},
        {"policies": [{"namespace": "shop", "name": "web", "uid": "u", "generation": 1, "matched": 1}]},
        {"agent": {"release": "other/release"}, "future": {"field": 1}},
    ],
)
def test_fields_that_others_add_to_a_report_are_removed(
    api: FakeApi, reported: Reporter, foreign: dict[str, Any]
) -> None:
    """An apply leaves them. Do not wait for the pace of reports, and do not repeat the repair."""
    api._answer = merging(api, "node")  # type: ignore[method-assign]
    reported._report.pace.override_s = 3600.0
    reported._report.pace.record(time.monotonic())
    reported._worker.trigger()  # it waits for the pace
    own = reports(api)[-1]
    api.put(REPORTS, "node", status=merged(own, foreign))
    until(lambda: lasting(api.list(REPORTS)["items"][0]["status"]) == lasting(own))
    until(lambda: not reported._report._is_overwritten())


def test_pods_of_one_policy_hide_no_pod_of_another_in_a_report() -> None:
    """Report 8 of each policy first, then those without a limit, then by name."""

    def pods(number: int, namespace: str, reason: str) -> list[PodReport]:
        return [PodReport(namespace, f"web-{each:02}", "web", "egress", reason, "") for each in range(number)]

    ranked = _ranked([*pods(70, "a", "NoFq"), *pods(2, "shop", "NoFreeSlot"), *pods(9, "b", "NoFreeSlot")])
    assert [pod.namespace for pod in ranked] == ["b"] * 8 + ["shop"] * 2 + ["a"] * 8 + ["b"] + ["a"] * 62


def test_a_report_of_thousands_of_policies_fits_into_an_object(
    api: FakeApi, stats: ReconcileStats, reporter: Reporter
) -> None:
    """Count the policies without room. etcd rejects objects of more than 1.5 MiB."""
    policies = tuple(
        parse_policy({**POLICY, "metadata": {"namespace": "shop", "name": f"{number:0250}"}})
        for number in range(2000)
    )
    stats.state = NodeState(DesiredInput(policies=policies, pods=WAITS))
    reporter.start()
    until(lambda: (stats.on_change(), reporter.reported_at_s)[1])
    body = api.seen(writes("tokenbucketnodes"))[-1].body
    status = json.loads(body)["status"]
    assert len(body) < 2**20
    assert status["policiesOmitted"] == 2000 - len(status["policies"])


def test_conditions_of_the_controller_are_no_edit(api: FakeApi, reported: Reporter) -> None:
    """Avoid one more write on every node for each change of a condition."""
    status = reports(api)[-1]
    api.put(REPORTS, "node", status={**status, "conditions": [{"type": "AgentReady"}]})
    until(lambda: (stored := reported._report._store.get("", "node")) and stored.status)
    reported._trigger()
    assert not reported._report._is_overwritten()


def test_a_state_that_no_run_renews_is_not_reported_again(
    api: FakeApi, stats: ReconcileStats, reported: Reporter
) -> None:
    """Let the node become silent if the loop hangs, or if each of its runs fails."""
    before = len(reports(api))
    stats.published_at -= 91
    reported._report.due = True
    assert asyncio.run(write_report(reported))
    assert len(reports(api)) == before
    stats.published_at += 91
    assert asyncio.run(write_report(reported))
    assert len(reports(api)) == before + 1


async def write_report(reporter: Reporter) -> bool:
    """Write the report now. Return whether the API server accepted it."""
    async with Client(reporter._report.informers.listed) as client:
        return await reporter._write_report(client)


def test_a_report_is_written_regularly_without_a_change(api: FakeApi, reported: Reporter) -> None:
    """Show that the agent has access to the API server, and when."""
    before = reports(api)
    reported._report.due = True
    reported._trigger()
    until(lambda: len(reports(api)) > len(before))
    last = reports(api)[-1]
    assert last["syncPeriodSeconds"] == 20
    assert last["lastSync"] >= before[-1]["lastSync"]
    contacts = {watch["resource"]: watch.get("lastContact") for watch in last["watches"]}
    assert set(contacts) == {"tokenbucketpolicies", "pods", "nodes", "configmaps"}
    assert all(contacts.values())


def test_the_time_of_the_report_is_that_of_an_answer(
    api: FakeApi, stats: ReconcileStats, reported: Reporter
) -> None:
    """Do not move it while the API server does not answer, so that the alert can fire."""
    api.stop()
    try:
        before = reported.reported_at_s
        reported._report.due = True
        failed = answers.counts().get(("PATCH", 0), 0)
        until(lambda: (stats.on_change(), answers.counts().get(("PATCH", 0), 0) > failed)[1])
        assert reported.reported_at_s == before
    finally:
        api.start()


def test_a_report_has_the_version_of_policies_that_a_run_has_used(
    api: FakeApi, source: ClusterSource, stats: ReconcileStats, reported: Reporter
) -> None:
    """Report a new policy that selects no pod, and not before the run that used it."""
    document = api.put(POLICIES, "web", "shop", **POLICY)
    version = int(document["metadata"]["resourceVersion"])
    until(lambda: source.policies.version >= version)
    stats.on_change()
    assert all(told["policiesVersion"] < version for told in reports(api))
    inputs = source.snapshot()
    assert inputs
    stats.record_success(inputs, Outcome(), 0.0)
    until(lambda: reports(api)[-1]["policiesVersion"] >= version)


def test_a_kind_that_is_gone_is_a_problem_of_the_node(
    api: FakeApi, stats: ReconcileStats, reported: Reporter
) -> None:
    """Name the kind, as after the CRD was deleted."""
    api.kinds.remove(POLICIES)
    for _ in range(3):
        api.fail(watch_of(POLICIES), 404)
        api.fail(list_of(POLICIES), 404)
    api.cut(RESET, POLICIES)
    until(lambda: (stats.on_change(), "install the CRDs" in reports(api)[-1].get("problem", ""))[1])
    assert reported.ready


def test_the_report_of_a_clean_node_is_not_written_again(
    api: FakeApi, stats: ReconcileStats, reporter: Reporter
) -> None:
    """Keep the report deleted, although the agent still runs."""
    reporter.start()
    until(lambda: (stats.record_clean(DesiredInput(cleanup=True)), reports(api))[1])
    api.delete(REPORTS, "node")
    until(lambda: not reporter._report._store.values())
    before = reporter.reported_at_s
    until(lambda: (stats.record_clean(DesiredInput(cleanup=True)), reporter.reported_at_s != before)[1])
    (written,) = api.seen(writes("tokenbucketnodes"))
    assert (report(written)["clean"], json.loads(written.body)["metadata"]["uid"]) == (True, "node-uid")


@pytest.mark.parametrize("reads", [True, False])
def test_an_invalid_annotation_causes_an_event_if_the_agent_reads_annotations(
    api: FakeApi, source: ClusterSource, *, reads: bool
) -> None:
    """Do not delay the report."""
    api.kinds |= {EVENTS}
    source.options = replace(source.options, bandwidth_annotations=reads)
    pod = replace(WAITS[0], annotated=read_annotations("shop", {"kubernetes.io/ingress-bandwidth": "x"}))
    target = desired([], [pod], lambda _: PodInterfaces(), Capabilities())
    outcome = Outcome(deviations=tuple(target.deviations))
    stats = ReconcileStats(state=NodeState(DesiredInput(pods=(pod,)), outcome))
    reporter = Reporter(source, stats)
    reporter.start()
    until(lambda: (stats.on_change(), reporter.reported_at_s)[1])
    if reads:
        until(lambda: (stats.on_change(), api.list(EVENTS)["items"])[1])
    reporter.stop()
    reasons = [event["reason"] for event in api.list(EVENTS)["items"]]
    assert reasons == (["InvalidAnnotation"] if reads else [])
