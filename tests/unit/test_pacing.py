"""The frequency of reconcile runs, retries, status writes and repairs, with a simulated clock."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket import pacing
from tokenbucket.core.api.node_report import LONGEST_PERIOD_S
from tokenbucket.errors import ApiError
from tokenbucket.pacing import (
    ALL_EVENTS_PER_S,
    EVENTS_PER_S,
    LONGEST_INTERVAL_S,
    REPAIR_WINDOW_S,
    REPAIRS,
    NextRun,
    Repairs,
    ReportPace,
    RetryTracker,
    Schedule,
    Worker,
    WriteBudget,
    WriteThrottle,
    pause_after,
)


def idle(at: float = 100.0) -> Schedule:
    """Return a schedule whose last run was at this time."""
    schedule = Schedule(min_s=1, max_s=60, retry_s=2, wait_retry_s=5)
    schedule.started(at)
    return schedule


def test_the_first_run_is_due_at_once() -> None:
    """Limit pods as soon as possible."""
    assert Schedule().due(0.0)


def test_a_trigger_makes_a_run_due_after_the_minimum_interval() -> None:
    """Combine many events into one run."""
    schedule = idle()
    for _ in range(100):
        schedule.trigger(100.5)
    assert not schedule.due(100.9)
    assert schedule.due(101.0)


def test_a_trigger_after_a_quiet_time_is_due_once_its_events_have_settled() -> None:
    """Combine the events of a new pod. More events do not put the run off."""
    schedule = idle()
    for moment in (130.0, 130.002, 130.003):
        assert not schedule.due(moment)
        schedule.trigger(moment)
    assert schedule.due(130.005)


def test_a_run_is_due_after_the_maximum_interval_without_a_trigger() -> None:
    """Correct the effect of lost events."""
    assert idle().wait(100.0) == 60.0
    assert idle().due(160.0)


@pytest.mark.parametrize(("following", "pause_s"), [(NextRun.RETRY, 2.0), (NextRun.SOON, 5.0)])
def test_an_incomplete_run_is_followed_soon(following: NextRun, pause_s: float) -> None:
    """Wait less than the maximum interval. Waiting for time is no failure."""
    schedule = idle()
    schedule.started(200.0, following)
    assert schedule.wait(200.0) == pause_s


def outcomes(*results: bool, triggers: int) -> int:
    """Return the number of runs of a worker with these results, after a number of changes at once."""

    async def run() -> int:
        worker, left, done = Worker(lambda: 0.0), list(results), asyncio.Event()
        made = 0

        async def work() -> bool:
            nonlocal made
            made += 1
            if len(left) == 1:
                done.set()
            return left.pop(0)

        for _ in range(triggers):
            worker.trigger()
        task = asyncio.create_task(worker.run(work))
        await done.wait()
        for _ in range(10):  # another run would begin by now
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return made

    return asyncio.run(run())


def test_many_changes_cause_one_run() -> None:
    """Include changes from before the worker runs."""
    assert outcomes(True, triggers=100) == 1


def test_a_failed_run_is_retried_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry until it succeeds."""
    monkeypatch.setattr(pacing, "Backoffs", lambda: [0.0, 0.0])
    assert outcomes(False, False, True, triggers=1) == 3


def test_any_thread_can_report_a_change() -> None:
    """Ignore changes after the worker has ended."""
    worker, made = Worker(lambda: 0.0), 0

    async def run() -> None:
        ran = asyncio.Event()

        async def work() -> bool:
            nonlocal made
            made += 1
            ran.set()
            return True

        task = asyncio.create_task(worker.run(work))
        await asyncio.sleep(0)
        await asyncio.to_thread(worker.trigger)
        await ran.wait()
        task.cancel()

    asyncio.run(run())
    worker.trigger()
    assert made == 1


class Writes:
    """Attempts to write one object, which are answered with ``status``. 200 accepts the write."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits_s: list[float] = []
        self.retries = RetryTracker(self.waits_s.append, lambda: self.now)
        self.status = 422
        self.made = 0

    def make(self) -> bool:
        """Return whether it was written."""
        return bool(asyncio.run(self.retries.run("web-uid", self._write)))

    def pass_time(self) -> None:
        """Advance the clock until it is due again."""
        self.now += self.waits_s[-1] + 0.001  # floats are not exact

    async def _write(self) -> bool:
        self.made += 1
        if self.status != 200:
            raise ApiError("PATCH", "/web/status", self.status, "denied by policy")
        return True


def test_a_rejected_write_is_retried_after_growing_waits() -> None:
    """Expect that the rejection never ends."""
    writes = Writes()
    for _ in range(8):
        assert not writes.make()
        assert not writes.make()
        writes.pass_time()
    assert writes.made == len(writes.waits_s) == 8
    assert writes.waits_s[0] <= 1 < writes.waits_s[3] < writes.waits_s[5]
    assert max(writes.waits_s) <= 30


def test_a_rejection_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Log the object and the cause, and log another answer again."""
    writes = Writes()
    for status in (422, 422, 403, 403):
        writes.status = status
        writes.make()
        writes.pass_time()
    errors = [record.__dict__["error"] for record in caplog.records]
    assert errors == [f"PATCH /web/status: {status}: denied by policy" for status in (422, 403)]


def test_a_successful_write_resets_the_wait() -> None:
    """Keep an old rejection from delaying a write."""
    writes = Writes()
    for _ in range(6):
        writes.make()
        writes.pass_time()
    writes.status = 200
    assert writes.make()
    writes.status = 422
    writes.make()
    assert writes.waits_s[-1] <= 1


def test_a_deleted_object_is_forgotten() -> None:
    """Bound the memory of a controller that runs for months."""
    writes = Writes()
    writes.make()
    writes.retries.retain({"other-uid"})
    writes.make()
    assert writes.made == 2


@pytest.mark.parametrize("status", [0, 401, 429, 502, 503])
def test_an_error_that_is_not_about_the_object_causes_no_wait(status: int) -> None:
    """Stop for now, and continue with any object."""
    writes = Writes()
    writes.status = status
    with pytest.raises(ApiError):
        writes.make()
    writes.status = 200
    assert writes.make()


def written(policy: str = "web") -> WriteThrottle:
    """Return a throttle after the status of a policy was written at 100 s."""
    throttle = WriteThrottle()
    throttle.record(policy, 100.0)
    return throttle


def test_the_first_status_is_written_at_once() -> None:
    """Serve the user who applies a policy."""
    assert WriteThrottle().wait_s("web", 5000, 100.0) == 0.0


@pytest.mark.parametrize("nodes", [200, 1000, 5000])
def test_a_status_that_changes_continuously_causes_a_bounded_number_of_events(nodes: int) -> None:
    """Count one event on each node per write."""
    interval_s = written().wait_s("web", nodes, 100.0)
    assert nodes / interval_s <= max(EVENTS_PER_S, nodes / LONGEST_INTERVAL_S)
    assert interval_s <= LONGEST_INTERVAL_S
    assert written().wait_s("web", nodes, 100.0 + interval_s) == 0.0


def test_a_small_cluster_hardly_waits() -> None:
    """Wait for less than the second between runs."""
    assert written().wait_s("web", 20, 100.0) < 1.0


def test_one_policy_does_not_delay_another() -> None:
    """Use a separate interval for each policy."""
    assert written("web").wait_s("api", 5000, 100.0) == 0.0


def test_the_interval_of_a_deleted_policy_is_forgotten() -> None:
    """Bound the memory of a controller that runs for months."""
    throttle = written("web")
    throttle.record("api", 100.0)
    throttle.retain({"api"})
    assert throttle.wait_s("web", 5000, 100.0) == 0.0
    assert throttle.wait_s("api", 5000, 100.0) > 0.0


def test_at_most_five_repairs_per_minute_are_permitted() -> None:
    """End a conflict of two programs that want the same place."""
    repairs = Repairs()
    assert [repairs.allow("eth0", float(second)) for second in range(7)] == [True] * REPAIRS + [False] * 2
    assert repairs.allow("eth1", 7.0)
    assert repairs.allow("eth0", REPAIR_WINDOW_S + 0.5)


@pytest.mark.parametrize("pause_s", [20.0, 61.0])
def test_rare_repairs_are_always_permitted(pause_s: float) -> None:
    """Tolerate a CNI plugin that restarts occasionally."""
    repairs = Repairs()
    assert all(repairs.allow("eth0", number * pause_s) for number in range(20))


@pytest.mark.parametrize(
    ("nodes", "spread_s", "period_s"), [(1, 1, 20), (150, 1, 20), (1000, 20 / 3, 20), (5000, 100 / 3, 100)]
)
def test_the_pace_of_reports_fits_the_number_of_nodes(nodes: int, spread_s: float, period_s: float) -> None:
    """Keep all agents together below 150 reports per second after a change, and below 50 without one."""
    pace = ReportPace(nodes=nodes)
    assert (pace.spread_s, pace.sync_period_s) == pytest.approx((spread_s, period_s))
    assert ReportPace(nodes=10**6).sync_period_s == LONGEST_PERIOD_S


@given(st.floats(0, 1000), st.floats(0.001, 1))
def test_repeated_work_takes_at_most_its_share(cost_s: float, share: float) -> None:
    """Check work of any processor time."""
    pause_s = pause_after(cost_s, 4.0, share)
    assert pause_s >= 4
    assert cost_s / (cost_s + pause_s) <= share


@given(st.integers(1, 10_000), st.lists(st.floats(0, 5), min_size=50, max_size=50))
def test_endless_changes_cause_one_report_per_spread(nodes: int, delays: list[float]) -> None:
    """Report each change within one spread: a status must be correct soon on a large cluster too."""
    pace, now, sent = ReportPace(nodes=nodes), 0.0, []
    for delay in delays:
        pause_s = pace.pause_s(now)
        assert pause_s <= 1.001 * pace.spread_s
        now += pause_s
        pace.record(now)
        sent.append(now)
        now += delay
    for first, second in itertools.pairwise(sent):
        assert second - first >= 0.999 * pace.spread_s


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_all_statuses_share_one_budget_of_events(writes: list[int]) -> None:
    """Bound the events by the rate, one second of it, and the last write."""
    budget, now, events = WriteBudget(), 0.0, 0
    for nodes in writes:
        now += budget.wait_s(now)
        assert events <= (now + 1) * ALL_EVENTS_PER_S * 1.001
        budget.spend(nodes, now)
        events += nodes


def test_runs_that_fail_in_the_same_way_are_retried_less_often() -> None:
    """Bound the CPU time. A success or a change resets the wait."""
    schedule = Schedule(retry_s=1, longest_retry_s=16)
    waits = []
    for _ in range(7):
        schedule.started(100.0, NextRun.RETRY)
        waits.append(schedule.wait(100.0))
    assert waits == [1, 2, 4, 8, 16, 16, 16]
    schedule.started(100.0)
    schedule.started(100.0, NextRun.RETRY)
    assert schedule.wait(100.0) == 1
