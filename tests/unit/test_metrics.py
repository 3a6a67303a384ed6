"""Exposed metrics: names, labels and values, parsed as Prometheus does."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hack import metrics_table
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.fake_api import FakeApi, list_of
from tokenbucket import metrics
from tokenbucket.agent.metrics import OF_THE_AGENT, OF_THE_PODS, AgentReading
from tokenbucket.agent.policy_metrics import OF_THE_POLICIES, PolicyTotals
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.connection import answers
from tokenbucket.apiserver.resources import PODS, Selection
from tokenbucket.controller.metrics import OF_THE_CONTROLLER
from tokenbucket.controller.run import Controller, ControllerOptions
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Limit, Policy, Rate
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.limits.counters import Counters
from tokenbucket.core.limits.slot import DeviceId, Owner, Slot, SlotConfig, SlotKey, Subject
from tokenbucket.core.limits.stats import EXPOSED, Stats
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import DesiredInput, NodeState, Outcome
from tokenbucket.errors import ApiError, KernelError
from tokenbucket.metrics import Endpoint, Measure, registry_of, serving

HOST = "127.0.0.1"
PATIENCE_S = 30.0
READING = AgentReading(ReconcileStats(), ready=True)
COUNTED = Stats(
    in_window_packets=1,
    idle_packets=2,
    conform_bytes=300,
    reserve_packets=4,
    reserve_bytes=400,
    delayed_packets=5,
    delayed_bytes=500,
    delayed_ns=2_500_000_000,
    forwarded_packets=6,
    forwarded_bytes=600,
    dropped_packets=7,
    dropped_bytes=700,
    ce_packets=8,
    marked_packets=9,
)
EVERY = {each.name: each for each in (*OF_THE_AGENT, *OF_THE_PODS, *OF_THE_POLICIES, *OF_THE_CONTROLLER)}

Labels = frozenset[tuple[str, str]]


def slot(subject: Subject, config: SlotConfig | None = None) -> Slot:
    return Slot(Owner(SlotKey(subject, Direction.INGRESS), "web"), config or SlotConfig(bits_per_s=8000))


def values(text: str) -> Mapping[tuple[str, Labels], float]:
    """Return every sample of an exposition. Each must be unique."""
    found = [
        ((sample.name.removeprefix("tokenbucket_"), frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def agent_values(reading: AgentReading) -> Mapping[tuple[str, Labels], float]:
    return values(generate_latest(registry_of((*OF_THE_AGENT, *OF_THE_PODS), lambda: reading)).decode())


def of_pod(reading: AgentReading, pod: str) -> dict[str, float]:
    """Return the samples of one pod."""
    return {name: value for (name, labels), value in agent_values(reading).items() if ("pod", pod) in labels}


def test_names_follow_the_conventions() -> None:
    """Use one prefix, base units, _total for counters, and one meaning per name."""
    assert all(re.fullmatch(r"tokenbucket(_[a-z]+)+", name) for name in EVERY)
    units = re.compile(r"milli|micro|nano|kilo|mega|bits|_ms|_ns")
    assert not [name for name in EVERY if units.search(name)]
    for measures in ((*OF_THE_AGENT, *OF_THE_PODS, *OF_THE_POLICIES), OF_THE_CONTROLLER):
        assert len({each.name for each in measures}) == len(measures)
        assert all(each.meaning.endswith(".") for each in measures)


def test_the_counters_of_a_pod_equal_those_of_its_slot() -> None:
    """Count all forwarded traffic as admitted, and delays in seconds."""
    config = SlotConfig(bits_per_s=8000, max_delay_q=1, dscp=3)
    assert of_pod(replace(READING, limits=[(slot(PodId("shop", "web-0"), config), COUNTED)]), "web-0") == {
        "pod_admitted_packets_total": 1 + 2 + 4 + 5 + 6,
        "pod_admitted_bytes_total": 300 + 400 + 500 + 600,
        "pod_dropped_packets_total": 7,
        "pod_dropped_bytes_total": 700,
        "pod_delayed_packets_total": 5,
        "pod_delay_seconds_total": 2.5,
        "pod_congestion_marked_packets_total": 8,
        "pod_marked_packets_total": 9,
        "pod_forwarded_packets_total": 6,
        "pod_rate_bytes_per_second": 1000,
    }


def test_a_limit_has_only_series_that_can_change() -> None:
    """Expose no delays and marks for Drop, and no rate in bytes for a packet rate."""
    config = SlotConfig(packets_per_s=10, packets_burst_q=256 * 10**9)
    assert of_pod(replace(READING, limits=[(slot(PodId("shop", "web-0"), config), Stats())]), "web-0") == {
        "pod_admitted_packets_total": 0,
        "pod_admitted_bytes_total": 0,
        "pod_dropped_packets_total": 0,
        "pod_dropped_bytes_total": 0,
        "pod_rate_packets_per_second": 10,
        "pod_burst_packets": 10,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"excess": 30}),
        ({"max_delay_q": 1}, {"excess": 30, "delayed": 20}),
        ({"dscp": 8}, {"excess": 30}),
        ({"observe": False}, {}),
        ({"observe": False, "max_delay_q": 1}, {}),
        ({"observe": False, "dscp": 8}, {}),
    ],
)
def test_only_a_limit_in_observe_mode_has_the_bytes_of_a_dry_run(
    fields: dict[str, int | bool], expected: dict[str, int]
) -> None:
    """Count them by pod and by policy, without the bytes of a time in Enforce mode."""
    config = SlotConfig(bits_per_s=8000, **{"observe": True, **fields})
    counted = Stats(conform_bytes=50, delayed_bytes=20, forwarded_bytes=30)
    limit, totals = slot(PodId("shop", "web-0"), config), PolicyTotals()
    totals.read([(limit, Stats())], NodeState())
    policies = totals.read([(limit, counted)], NodeState())
    reading = replace(READING, limits=[(limit, counted)], policies=policies)
    registry = registry_of((*OF_THE_AGENT, *OF_THE_PODS, *OF_THE_POLICIES), lambda: reading)
    series = values(generate_latest(registry).decode())
    for kind in ("pod", "policy"):
        found = {name: value for (name, _), value in series.items() if name.startswith(f"{kind}_dry_run")}
        assert found == {f"{kind}_dry_run_{name}_bytes_total": value for name, value in expected.items()}


@given(st.text(min_size=1), st.text())
def test_any_name_survives_the_exposition(pod: str, policy: str) -> None:
    """Accept quotes and line ends, which names of manifests can contain."""
    limit = Slot(Owner(SlotKey(PodId("a\\b", pod), Direction.EGRESS), policy), SlotConfig())
    labels = {"namespace": "a\\b", "pod": pod, "policy": policy, "direction": "egress"}
    found = agent_values(replace(READING, limits=[(limit, COUNTED)]))
    assert found["pod_dropped_packets_total", frozenset(labels.items())] == 7


def test_two_slots_of_one_name_are_one_series() -> None:
    """Add them while a pod is recreated, because Prometheus rejects duplicates."""
    slots = [(slot(PodId("shop", "web-0", uid)), COUNTED) for uid in ("1", "2")]
    assert of_pod(replace(READING, limits=slots), "web-0")["pod_dropped_packets_total"] == 7


def test_a_manual_limit_has_no_pod_series() -> None:
    """Count only its slot."""
    found = agent_values(replace(READING, limits=[(slot(DeviceId(0, "eth1")), COUNTED)]))
    assert not [name for name, _ in found if name.startswith("pod_")]
    assert found["slots_in_use", frozenset()] == 1


def test_a_guard_has_only_the_series_of_its_drops() -> None:
    """Keep the series of its limit."""
    limit = SlotKey(PodId("shop", "web-0"), Direction.EGRESS)
    of_limit, of_guard = Stats(in_window_packets=3), Stats(in_window_packets=2, dropped_packets=1)
    slots = [
        (Slot(Owner(key, "web"), SlotConfig(bits_per_s=8000)), stats)
        for key, stats in ((limit, of_limit), (limit.guard, of_guard))
    ]
    found = of_pod(replace(READING, limits=slots), "web-0")
    assert found["pod_admitted_packets_total"] == 3
    assert found["pod_dropped_packets_total"] == 0
    assert found["pod_guard_dropped_packets_total"] == 1


def limits(policy: str, **dropped: int) -> list[tuple[Slot, Stats]]:
    """Return limits of one policy with the dropped packets of each pod."""
    keys = {pod: SlotKey(PodId("shop", pod), Direction.INGRESS) for pod in dropped}
    return [
        (Slot(Owner(keys[pod], policy), SlotConfig(bits_per_s=8000)), Stats(dropped_packets=count))
        for pod, count in dropped.items()
    ]


def test_the_sums_of_a_policy_never_decrease() -> None:
    """Keep the traffic of pods that have ended, and count none before the first scrape."""
    totals, found = PolicyTotals(), []
    for each in (
        limits("web", a=5, b=7),
        limits("web", a=6, b=9),
        limits("web", a=6),  # b ends
        limits("web", a=8, c=10),  # c starts
        limits("web", a=1, c=10),  # a was limited anew
        [*limits("web", a=2), *limits("other", c=13)],  # another policy gets precedence
        limits("other", c=13),  # web limits no pod
        [*limits("web", a=4), *limits("other", c=14)],
    ):
        reading = replace(READING, policies=totals.read(each, NodeState()))
        text = generate_latest(
            registry_of((*OF_THE_AGENT, *OF_THE_POLICIES), lambda reading=reading: reading)
        )
        series = values(text.decode())
        labels = [{"namespace": "shop", "policy": name, "direction": "ingress"} for name in ("web", "other")]
        names = [("policy_dropped_packets_total", frozenset(each.items())) for each in labels]
        found.append([series.get(name) for name in names])
    assert [web for web, _ in found] == [0, 3, 3, 15, 16, 17, None, 4]
    assert [other for _, other in found] == [*[None] * 5, 3, 3, 4]


def test_the_figures_of_a_policy_are_sums_over_its_pods() -> None:
    """Add rates, and count deviations by reason."""
    state = deviating(
        *(Deviation(SlotKey(PodId("shop", "web-0"), Direction.INGRESS), Reason.NO_FQ, "") for _ in range(1))
    ).state
    reading = replace(READING, policies=PolicyTotals().read(limits("web", a=0, b=0), state))
    found = values(generate_latest(registry_of(OF_THE_POLICIES, lambda: reading)).decode())
    labels = {"namespace": "shop", "policy": "web", "direction": "ingress"}
    assert found["policy_rate_bytes_per_second", frozenset(labels.items())] == 2000
    assert found["policy_not_as_declared", frozenset((labels | {"reason": "NoFq"}).items())] == 1
    assert not [name for name, of_series in found if "pod" in dict(of_series)]


def test_a_change_counts_from_its_receipt_until_a_run_without_an_error() -> None:
    """Include runs that fail, and changes during a run in the next one."""
    stats, received_at = ReconcileStats(), time.monotonic() - 100
    stats.record_start(DesiredInput(received_at=received_at))
    stats.record_failure(0.1)
    stats.record_start(DesiredInput(received_at=time.monotonic()))
    assert stats.oldest_pending_s >= 100
    stats.record_success(DesiredInput(), Outcome(complete=False), 0.1)
    stats.record_start(DesiredInput())
    stats.record_success(DesiredInput(), Outcome(), 0.1)
    found = agent_values(replace(READING, stats=stats))
    assert found["agent_change_latency_seconds_count", frozenset()] == 1
    assert found["agent_change_latency_seconds_sum", frozenset()] >= 100
    assert found["agent_change_latency_seconds_bucket", frozenset({("le", "60.0")})] == 0
    assert found["agent_change_latency_seconds_bucket", frozenset({("le", "+Inf")})] == 1
    assert found["agent_oldest_pending_seconds", frozenset()] == 0


def test_the_age_of_a_pending_limit_is_that_of_its_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore limits that only an administrator can repair."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    keys = [SlotKey(PodId("shop", f"web-{number}"), Direction.INGRESS) for number in range(3)]
    stats, ages = ReconcileStats(), []
    for pending in ((), keys[:1], keys[:2], keys[1:2], ()):
        deviations = tuple(Deviation(key, Reason.NO_ADDRESS, "") for key in pending)
        failed = Deviation(keys[2], Reason.NO_FREE_SLOT, "")
        stats.record_success(DesiredInput(), Outcome(deviations=(*deviations, failed)), 0.1)
        now += 10
        ages.append(stats.oldest_pending_s)
    assert ages == [0, 10, 20, 20, 0]


def test_a_limit_that_keeps_failing_ages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the changes of all other limits in the runs that apply them."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    broken = SlotKey(PodId("shop", "web-0"), Direction.INGRESS)
    stats = ReconcileStats()
    for _ in range(100):
        stats.record_start(DesiredInput(received_at=now))
        now += 1
        stats.record_success(DesiredInput(), Outcome(complete=False, failing={broken}), 0.1)
    found = agent_values(replace(READING, stats=stats))
    assert found["agent_change_latency_seconds_count", frozenset()] == 100
    assert found["agent_change_latency_seconds_sum", frozenset()] == 100
    assert found["agent_oldest_pending_seconds", frozenset()] == 99
    stats.record_success(DesiredInput(), Outcome(), 0.1)
    assert stats.oldest_pending_s == 0


def deviating(*deviations: Deviation) -> AgentReading:
    """Return an agent with one limited pod and these deviations."""
    policy = Policy("shop", "web", Selector(), {Direction.INGRESS: Limit(Rate(8000))})
    inputs = DesiredInput((policy,), (Pod(PodId("shop", "web-0"), {}, frozenset()),))
    state = NodeState(inputs, Outcome(deviations=deviations))
    return replace(READING, stats=ReconcileStats(state=state))


def test_every_reason_has_a_series_before_it_occurs() -> None:
    """Let alerts and their tests find the series."""
    keys = [SlotKey(PodId("shop", f"web-{number}"), Direction.INGRESS) for number in range(3)]
    found = agent_values(deviating(*(Deviation(key, Reason.NO_FQ, "") for key in keys)))
    reasons = {
        dict(labels)["reason"]: value
        for (name, labels), value in found.items()
        if name == "limits_not_as_declared"
    }
    assert reasons == dict.fromkeys(map(str, Reason), 0) | {"NoFq": 3}


def test_each_deviation_has_one_series() -> None:
    """Use the policy name of the pod's counters, and no message."""
    key = SlotKey(PodId("shop", "web-0"), Direction.INGRESS)
    reading = deviating(*(Deviation(key, Reason.NO_FQ, message) for message in ("one", "two")))
    assert of_pod(reading, "web-0") == {"pod_not_as_declared": 1}


def test_events_that_have_not_occurred_have_no_timestamp() -> None:
    """Avoid a 0, which is the year 1970."""
    names = {name for name, _ in agent_values(replace(READING, stats=ReconcileStats(completed_at_s=None)))}
    assert "agent_last_reconcile_timestamp_seconds" not in names
    assert "agent_report_timestamp_seconds" not in names
    assert "agent_ready" in names


def leader() -> Controller:
    """Return a controller that has just renewed the lease."""
    controller = Controller(ControllerOptions("tokenbucket-system", "controller-1", "app=agent"))
    controller._election._renewed_at = time.monotonic()
    return controller


def test_only_the_leader_exports_the_metrics_of_policies_and_agents(api: FakeApi) -> None:
    """Avoid that sums over all replicas count each policy twice."""
    controller = leader()
    controller._election._renewed_at = float("-inf")
    controller.stores.policies.put({"metadata": {"namespace": "shop", "name": "web"}})
    found = values(generate_latest(registry_of(OF_THE_CONTROLLER, lambda: controller)).decode())
    assert {name for name, _ in found} >= {"controller_ready", "controller_leader"}
    names = {"policies", "policy_ready", "policy_pods", "agents", "agent_unavailable", "nodes_without_agent"}
    assert not {name for name, _ in found} & names


def test_the_controller_counts_policies_and_agents(api: FakeApi) -> None:
    """Count policies by the reason of Ready, also without a status, and agents by readiness."""
    controller = leader()
    for name, reason, pods in (
        ("web", "Programmed", {"programmed": 2}),
        ("db", "Programmed", {}),
        ("new", "", {}),
    ):
        conditions = [
            {"type": "Accepted", "status": "True", "reason": "Accepted"},
            {"type": "Ready", "status": "True", "reason": reason},
        ]
        status = {"conditions": conditions, "pods": pods} if reason else {}
        controller.stores.policies.put({"metadata": {"namespace": "shop", "name": name}, "status": status})
    for name, state in (("one", "True"), ("two", "True"), ("three", "False")):
        conditions = [{"type": "Ready", "status": state}]
        controller.stores.agents.put({"metadata": {"name": name}, "status": {"conditions": conditions}})
    found = values(generate_latest(registry_of(OF_THE_CONTROLLER, lambda: controller)).decode())

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("controller_ready") == 0
    assert value("policies", reason="Programmed") == 2
    assert value("policies", reason="Unknown") == 1
    assert value("policy_ready", namespace="shop", policy="web", status="True", reason="Programmed") == 1
    assert value("policy_ready", namespace="shop", policy="new", status="Unknown", reason="Unknown") == 1
    assert value("policy_pods", namespace="shop", policy="web", state="programmed") == 2
    assert value("policy_pods", namespace="shop", policy="new", state="matched") == 0
    assert (value("agents", ready="true"), value("agents", ready="false")) == (2, 1)


def test_nodes_are_counted_that_have_lost_their_agent(api: FakeApi) -> None:
    """Exclude nodes that never had one, that start no pod, or whose agent is not ready."""
    controller = leader()
    stores = controller.stores
    for name, ready, reported in (
        ("lost", "True", True),
        ("down", "Unknown", True),
        ("virtual", "True", False),
        ("starting", "True", True),
    ):
        stores.nodes.put(
            {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}
        )
        if reported:
            stores.reports.put({"metadata": {"name": name}})
    stores.agents.put({"metadata": {"name": "agent"}, "spec": {"nodeName": "starting"}})
    found = values(generate_latest(registry_of(OF_THE_CONTROLLER, lambda: controller)).decode())
    assert found["nodes_without_agent", frozenset()] == 1
    unavailable = [dict(labels) for name, labels in found if name == "agent_unavailable"]
    assert unavailable == [{"node": "lost", "reason": "NoPod"}, {"node": "starting", "reason": "NotReady"}]


def test_requests_are_counted_by_method_and_status() -> None:
    """Count requests without a response as status 0."""
    found = agent_values(replace(READING, api_requests={("GET", 0): 4, ("PATCH", 200): 5}))
    labels = [{"method": "GET", "code": "none"}, {"method": "PATCH", "code": "200"}]
    assert [found["api_requests_total", frozenset(each.items())] for each in labels] == [4, 5]


def test_answers_of_the_api_are_counted(api: FakeApi) -> None:
    """Count every session, rejections, and missing answers."""

    def ask() -> None:
        async def run() -> None:
            async with Client() as client:
                await client.list(Selection(PODS))

        asyncio.run(run())

    before = Counter(answers.counts())
    ask()
    api.fail(list_of(PODS), 403)
    with pytest.raises(ApiError):
        ask()
    api.stop()
    with pytest.raises(ApiError):
        ask()
    api.start()
    assert Counter(answers.counts()) - before == {("GET", 200): 1, ("GET", 403): 1, ("GET", 0): 1}


def free_port(host: str = HOST) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as free:
        return free.getsockname()[1]


def fetch(url: str, context: ssl.SSLContext | None = None, **headers: str) -> str:
    """Return the text at a URL, once a server listens there."""
    request = urllib.request.Request(url, headers=headers)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S, context=context) as response:
                return response.read().decode()
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def served(registry: CollectorRegistry, times: int = 1, **headers: str) -> list[str]:
    """Return the texts of a number of scrapes."""
    port = free_port()
    with serving(Endpoint(HOST, port), registry):
        found = [fetch(f"http://{HOST}:{port}/metrics", **headers) for _ in range(times)]
    with pytest.raises(OSError, match="refused"), socket.create_connection((HOST, port)):
        pass
    return found


def test_metrics_are_served_for_the_duration_of_the_block() -> None:
    """Use a new process each time, and expose its memory."""
    texts = served(registry_of(OF_THE_AGENT, lambda: READING), times=2)
    assert all(values(text)["agent_ready", frozenset()] == 1 for text in texts)
    assert values(texts[0])["process_resident_memory_bytes", frozenset()] > 0


def test_open_metrics_is_served_on_request() -> None:
    """Negotiate the format as Prometheus does."""
    [text] = served(
        registry_of(OF_THE_AGENT, lambda: READING), Accept="application/openmetrics-text; version=1.0.0"
    )
    assert text.endswith("# EOF\n")
    assert "tokenbucket_limits_active" in {family.name for family in parse_open_metrics(text)}


def test_an_unreadable_kernel_is_an_error_and_not_a_zero() -> None:
    """Let Prometheus report the target as down. The next scrape can work."""

    def read() -> AgentReading:
        raise KernelError("bpf MAP_LOOKUP_ELEM", "tb_stats[7]", 12)

    registry = registry_of(OF_THE_AGENT, read)
    with pytest.raises(urllib.error.HTTPError) as caught:
        served(registry)
    assert caught.value.code == 500
    assert "tb_stats[7]" in caught.value.read().decode()


@pytest.mark.parametrize("client", ["127.0.0.1", "[::1]"])
def test_an_empty_host_means_all_addresses_of_both_families(client: str) -> None:
    """Support pod networks of one family or both."""
    port = free_port("::")
    with serving(Endpoint("", port), registry_of(OF_THE_AGENT, lambda: READING)):
        assert "tokenbucket_agent_ready" in fetch(f"http://{client}:{port}/metrics")


def test_metrics_are_served_at_an_ipv6_address() -> None:
    """Listen at this address only."""
    port = free_port("::1")
    with serving(Endpoint("::1", port), registry_of(OF_THE_AGENT, lambda: READING)):
        assert "tokenbucket_agent_ready" in fetch(f"http://[::1]:{port}/metrics")
        with pytest.raises(OSError, match="refused"), socket.create_connection((HOST, port)):
            pass


def test_scrapes_are_served_one_at_a_time() -> None:
    """Bound the memory if several clients ask at once."""
    running, most = 0, 0
    lock = threading.Lock()

    def read() -> AgentReading:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)  # so that another would begin meanwhile
        with lock:
            running -= 1
        return READING

    port = free_port()
    with serving(Endpoint(HOST, port), registry_of(OF_THE_AGENT, read)), ThreadPoolExecutor(4) as clients:
        texts = list(clients.map(fetch, [f"http://{HOST}:{port}/metrics"] * 8))
    assert len(texts) == 8
    assert most == 1


def test_a_metrics_address_in_use_is_retried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Log the problem and continue, because limits do not depend on metrics."""
    monkeypatch.setattr(metrics, "_RETRY_S", 0.01)
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        block = serving(Endpoint(HOST, port), registry_of(OF_THE_AGENT, lambda: READING))
        block.__enter__()
        wait_for(lambda: "metrics not served" in caplog.text)
    assert "tokenbucket_agent_ready" in fetch(f"http://{HOST}:{port}/metrics")
    block.__exit__(None, None, None)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def issue(folder: Path, name: str) -> ssl.SSLContext:
    """Write a new certificate of localhost. Return the trust of a client that accepts only it."""
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*request, *files, *subject], check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))


def test_metrics_are_encrypted_with_the_current_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a renewed certificate without a restart of the agent."""
    monkeypatch.setattr(metrics, "_RENEW_S", 0.01)
    first, port = issue(tmp_path, "first"), free_port()
    endpoint = Endpoint(HOST, port, (tmp_path / "cert.pem", tmp_path / "key.pem"))
    url = f"https://localhost:{port}/metrics"
    with serving(endpoint, registry_of(OF_THE_AGENT, lambda: READING)):
        assert "tokenbucket_agent_ready" in fetch(url, first)
        with socket.create_connection((HOST, port)):  # one without a handshake holds up no other
            assert "tokenbucket_agent_ready" in fetch(url, first)
        second = issue(tmp_path, "second")

        def trusted() -> bool:
            try:
                return "tokenbucket_agent_ready" in fetch(url, second)
            except urllib.error.URLError as error:
                assert isinstance(error.reason, ssl.SSLError)
                return False

        wait_for(trusted)


UNMETERED = {"unmetered_packets", "unmetered_bytes"}
"""Counters of no limit."""


@pytest.mark.parametrize("name", sorted({field.name for field in fields(Counters)} - UNMETERED))
def test_each_counter_of_the_program_is_shown_to_users(name: str) -> None:
    """Show it in the status, as a metric, or in a sum."""
    one = Stats(**{name: 1})
    assert any(exposed.value(one) for exposed in EXPOSED)


@pytest.mark.parametrize("measure", EVERY.values(), ids=EVERY)
def test_the_documentation_has_every_metric(measure: Measure) -> None:
    """Compare the tables that 'make generate' writes."""
    assert metrics_table.row(measure) in metrics_table.PAGE.read_text().splitlines()


def test_the_documentation_equals_the_generated_tables() -> None:
    """Name no metric that is not exposed."""
    current = metrics_table.PAGE.read_text()
    assert metrics_table.page(current) == current
