"""The agent's live figures over real HTTP. tests/netns/test_metrics.py reads them from a real kernel."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.unit.apiserver.live_client import HOST, free_port, listening, post
from tokenbucket.agent import live_endpoint
from tokenbucket.agent.live import LastMinute, LiveFigures
from tokenbucket.agent.live_endpoint import Endpoint, serving
from tokenbucket.agent.options import LiveOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.apiserver.bounded_http import AnswerError
from tokenbucket.bpf.pins import Pins
from tokenbucket.core.api.live import AGENT_PATH, LiveRequest
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Limit, Policy, Rate
from tokenbucket.core.api.selector import Operator, Requirement, Selector
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import DesiredInput, Outcome
from tokenbucket.errors import KernelError

UIDS = {name: f"0f6a1de2-6f0c-4b7a-9d3e-{name:0>12}" for name in ("web", "db", "secret")}
IDS = {name: PodId("shop", name, uid) for name, uid in UIDS.items()}
SECOND = 10**9
PATIENCE_S = 60.0


def figures() -> LiveFigures:
    """Return those of a node where nothing is loaded: one pod has a reason, one no policy."""
    stats = ReconcileStats()
    pods = tuple(
        Pod(pod, {"app": name}, frozenset({IPv4Address(f"10.0.0.{number}")}))
        for number, (name, pod) in enumerate(IDS.items(), 1)
    )
    policy = Policy(
        "shop",
        "limit",
        Selector(frozenset({Requirement("app", Operator.IN, frozenset({"web"}))})),
        {Direction.EGRESS: Limit(Rate(10**6))},
    )
    key = SlotKey(IDS["web"], Direction.EGRESS)
    deviation = Deviation(key, Reason.NO_INTERFACE, "pod: no interface; wait")
    stats.record_success(DesiredInput((policy,), pods), Outcome(deviations=(deviation,)), 0.1)
    return LiveFigures(Pins(Path("/sys/fs/bpf/no-such-folder")), stats, "node-a")


def ask(asked: LiveFigures, *requests: Any) -> list[tuple[int, Any]]:
    port = free_port()

    async def use() -> list[tuple[int, Any]]:
        await listening(port)
        return list(await asyncio.gather(*(post(port, AGENT_PATH, **request) for request in requests)))

    with serving(LiveOptions(HOST, port), asked):
        return asyncio.run(asyncio.wait_for(use(), PATIENCE_S))


def test_an_answer_contains_only_pods_whose_uid_the_request_names() -> None:
    ((status, answer),) = ask(figures(), {"json": {"uids": [UIDS["web"], UIDS["db"], "0" * 36]}})
    assert status == 200
    assert {pod["uid"] for pod in answer["pods"]} == {UIDS["web"], UIDS["db"]}
    assert UIDS["secret"] not in str(answer)
    assert "secret" not in str(answer)


def test_a_pod_without_a_slot_has_the_reason_of_the_agent() -> None:
    (web,) = figures().answer(LiveRequest(frozenset({UIDS["web"]})))["pods"]
    assert web["policies"] == {"egress": "limit"}
    assert web["limits"] == []
    (reason,) = web["reasons"]
    assert reason["reason"] == Reason.NO_INTERFACE.value
    assert reason["effect"] == Reason.NO_INTERFACE.effect.value
    (db,) = figures().answer(LiveRequest(frozenset({UIDS["db"]})))["pods"]
    assert (db["policies"], db["reasons"]) == ({}, [])


def test_an_agent_that_has_not_reconciled_reports_it() -> None:
    stats = ReconcileStats()
    answer = LiveFigures(Pins(Path("/sys/fs/bpf/no-such-folder")), stats, "a").answer(
        LiveRequest(frozenset({UIDS["web"]}))
    )
    assert answer["reconciled"] is False


def test_an_unreadable_kernel_is_an_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KernelError("read", "tb_owners", 5)

    monkeypatch.setattr(LiveFigures, "answer", fail)
    ((status, answer),) = ask(figures(), {"json": {"uids": [UIDS["web"]]}})
    assert status == 500
    assert answer["error"]["object"] == "node node-a"
    assert "tb_owners" in answer["error"]["problem"]


@pytest.mark.parametrize("request_", [{"data": b"{}"}, {"json": {"uids": ["*"]}}, {"json": {"uids": [""]}}])
def test_an_invalid_request_is_answered_with_its_field(request_: Any) -> None:
    ((status, answer),) = ask(figures(), request_)
    assert status == 400
    assert answer["error"]["object"] == "request.uids"
    assert answer["error"]["action"]


def test_all_requests_together_have_a_bounded_share_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reject requests that would wait too long, and work for at most a tenth of the time."""
    monkeypatch.setattr(live_endpoint, "_MINUTE_S", PATIENCE_S)
    worked = 0.0

    def work(*_: object) -> dict[str, Any]:
        nonlocal worked
        start = time.thread_time()
        while time.thread_time() - start < 0.05:
            pass
        worked += time.thread_time() - start
        return {}

    monkeypatch.setattr(LiveFigures, "answer", work)
    start = time.monotonic()
    answers = ask(figures(), *[{"json": {"uids": [UIDS["web"]]}}] * 40)
    # The rest after the last answer is not part of the time.
    assert worked <= (time.monotonic() - start) / 10 + 0.07
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 503}


def counters(packets: int) -> Stats:
    return Stats(in_window_packets=packets, conform_bytes=100 * packets)


KEY = SlotKey(IDS["web"], Direction.EGRESS)


def test_the_last_minute_is_the_shortest_recorded_time_of_at_least_a_minute() -> None:
    minute = LastMinute()
    assert minute.since(KEY, 0, counters(1)) == {}
    for second, packets in ((0, 10), (60, 70), (120, 130)):
        minute.record(second * SECOND, {KEY: counters(packets)})
    found = minute.since(KEY, 150 * SECOND, counters(160))
    assert (found["seconds"], found["admittedPackets"], found["admittedBytes"]) == (90, 90, 9000)
    assert minute.since(KEY, 180 * SECOND, counters(190))["seconds"] == 60
    assert minute.since(SlotKey(IDS["db"], Direction.EGRESS), 180 * SECOND, counters(1)) == {}


def test_counters_that_were_reset_have_no_last_minute() -> None:
    minute = LastMinute()
    minute.record(0, {KEY: counters(1000)})
    assert minute.since(KEY, 100 * SECOND, counters(3)) == {}


def test_the_agent_rests_after_a_read_that_took_too_long_for_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Count the CPU time of the read, which goes on in its thread, and start no other read beside it."""
    monkeypatch.setattr(live_endpoint, "_WAIT_S", 0.05)
    started: list[float] = []

    def read() -> str:
        started.append(time.monotonic())
        while time.monotonic() < started[-1] + 0.3:
            pass
        return "{}"

    async def use() -> float:
        endpoint = Endpoint(figures())
        for _ in range(3):
            with pytest.raises(AnswerError, match="too many requests"):
                await endpoint._in_turn(read)
        async with endpoint._turn:  # the read has ended
            return endpoint._rests_until

    rests_until = asyncio.run(asyncio.wait_for(use(), PATIENCE_S))
    assert len(started) == 1
    assert rests_until > started[0]


def test_an_outdated_state_is_not_shown() -> None:
    """Show no reason and no active limit of a loop that hangs, or whose runs all fail."""
    asked = figures()
    request = LiveRequest(frozenset(UIDS.values()))
    assert asked.answer(request)["reconciled"]
    asked.stats.published_at -= 91
    answer = asked.answer(request)
    assert (answer["reconciled"], answer["pods"]) == (False, [])
