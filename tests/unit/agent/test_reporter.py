"""What an agent tells the API server, and the kubelet."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.agent.options import AgentOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.reporter import Reporter
from tokenbucket.apiserver import informers
from tokenbucket.apiserver.resources import PODS, REPORTS
from tokenbucket.apiserver.watch import Watch
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.status.node_status import DesiredInput, NodeState

WAITS = tuple(
    Pod(PodId("shop", f"web-{number}"), {}, frozenset({IPv4Address("10.0.0.2")}), waits=True)
    for number in range(2)
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def source(api: FakeApi, tmp_path: Path) -> Iterator[ClusterSource]:
    """An agent's source."""
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
    """After a run on a node with pods that wait for their readiness gate."""
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
    """Whether a request writes one of these."""
    return lambda seen: seen.method == "PATCH" and f"/{kind}/" in seen.path


def is_ready(api: FakeApi, pod: str) -> bool:
    """Return whether the readiness gate of a pod is open."""
    return any(
        f"/{pod}/" in seen.path and '"status": "True"' in seen.body for seen in api.seen(writes("pods"))
    )


def test_a_report_that_is_refused_keeps_no_pod_from_getting_ready(
    api: FakeApi, stats: ReconcileStats, reporter: Reporter
) -> None:
    """Nor does one pod another."""
    for pod in WAITS:
        api.put(PODS, pod.id.name, "shop")
    for _ in range(100):
        api.fail(writes("tokenbucketnodes"), 422, "status.pods[0].policy: too long")
        api.fail(lambda seen: writes("pods")(seen) and "/web-0/" in seen.path, 403)
    reporter.start()
    until(lambda: (stats.on_change(), is_ready(api, "web-1"))[1])
    assert api.seen(writes("tokenbucketnodes"))


def test_a_refused_report_is_tried_again(api: FakeApi, stats: ReconcileStats, reporter: Reporter) -> None:
    """Without anything new to tell."""
    api.fail(writes("tokenbucketnodes"), 500)
    reporter.start()
    until(lambda: (stats.on_change(), len(api.seen(writes("tokenbucketnodes"))) > 0)[1])
    until(lambda: reporter.reported_at_s)


def test_an_agent_is_ready_when_its_report_is_taken(
    api: FakeApi,
    source: ClusterSource,
    stats: ReconcileStats,
    reporter: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A version whose reports are refused must not replace one whose are not."""
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


def is_look(seen: Seen) -> bool:
    """Whether a request asks for the report."""
    return (seen.method, seen.path) == ("GET", REPORTS.path(name="node"))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reporter looks for its report all the time."""
    monkeypatch.setattr(informers, "_RELIST_S", 0.01)
    monkeypatch.setattr(informers, "_DOUBT_S", 0.01)


@pytest.mark.usefixtures("looks")
def test_a_report_that_is_deleted_is_made_again(
    api: FakeApi, stats: ReconcileStats, reporter: Reporter
) -> None:
    """Somebody may take it for a stale one."""
    reporter.start()
    until(lambda: (stats.on_change(), reporter.reported_at_s)[1])
    before = len(api.seen(writes("tokenbucketnodes")))
    api.delete(REPORTS, "node")
    until(lambda: len(api.seen(writes("tokenbucketnodes"))) > before)


@pytest.mark.usefixtures("looks")
def test_the_report_of_a_clean_node_is_not_made_again(
    api: FakeApi, stats: ReconcileStats, reporter: Reporter
) -> None:
    """It is deleted before the agent is, and would stay for ever."""
    reporter.start()
    until(lambda: (stats.record_clean(DesiredInput(cleanup=True)), reporter.reported_at_s)[1])
    api.delete(REPORTS, "node")
    before = len(api.requests)
    until(lambda: len([seen for seen in api.requests[before:] if is_look(seen)]) > 4)
    (write,) = api.seen(writes("tokenbucketnodes"))
    document = json.loads(write.body)
    assert (document["status"]["clean"], document["metadata"]["uid"]) == (True, "node-uid")
