"""What ``make bench-fleet`` measures while something is wrong: few writes, and no false alarm."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from figures import Figure, at_most, must_be
from fleet_cluster import POLICIES, Fleet, wait_for
from fleet_objects import agent_name, set_ready
from fleet_scenarios import QUIET_S, most_in, pace_of
from fleet_window import Window, request_figures
from server_metrics import Metrics

from tests.e2e import release
from tokenbucket.pacing import ALL_EVENTS_PER_S

RESTART_S = 20.0
"""Between the end of an agent and its next start."""
AWAY_S = 75.0
"""Longer than the 70 s after which a watch that hears nothing begins anew."""
LOOP_S = 30.0
EDITS_PER_S = 2.0


def restarts(fleet: Fleet) -> list[Figure]:
    """Restart a tenth of the agents, as a rollout does."""
    numbers = random.sample(range(fleet.nodes), max(1, fleet.nodes // 10))
    before, statuses = fleet.now(), fleet.statuses()
    for number in numbers:
        fleet.agents[number].kill()
        set_ready(fleet.admin, release.NAMESPACE, agent_name(number), ready=False)
    time.sleep(RESTART_S)
    for number in numbers:
        fleet.agents[number] = fleet.begin(number)
        time.sleep(0.1)
    wait_for(lambda: all(fleet.ask("reported")), "the reports of the restarted agents", 0.5)
    for number in numbers:
        set_ready(fleet.admin, release.NAMESPACE, agent_name(number), ready=True)
    time.sleep(QUIET_S)
    window = fleet.since(before)
    return [
        Figure("agents restarted", [len(numbers)], ""),
        must_be("policies that were not ready meanwhile", [changed(statuses, fleet.statuses())], 0, ""),
        *_budget(fleet, window),
        *request_figures([window], 1, "in total"),
    ]


def outage(fleet: Fleet) -> list[Figure]:
    """Stop the API server, and start it again."""
    statuses = fleet.statuses()
    fleet.cluster.root.stop("kube-apiserver")
    time.sleep(AWAY_S)
    fleet.start_api_server()
    before, back_s = fleet.now(), time.monotonic()  # its counters begin at 0
    time.sleep(2 * pace_of(fleet).sync_period_s)
    window = fleet.since(replace(before, metrics=Metrics()))
    reports = fleet.reports_since(back_s)
    return [
        must_be("agents that reported again", [sum(map(bool, reports))], fleet.nodes, ""),
        must_be("policies that were not ready meanwhile", [changed(statuses, fleet.statuses())], 0, ""),
        at_most(
            "writes of the controller",
            [_by_controller(window, reports)],
            fleet.options.policies + fleet.nodes,
            "",
        ),
        at_most("reports in the first second with any", [_first_second(reports)], 150, ""),
        *_pace(fleet, reports),
        *_budget(fleet, window),
    ]


def edit_loop(fleet: Fleet) -> list[Figure]:
    """Edit a policy repeatedly, as one tenant."""
    before, begin_s, edits = fleet.now(), time.monotonic(), 0
    while time.monotonic() < begin_s + LOOP_S:
        rate = {"bits": 30_000_000 + edits * 1000}
        fleet.merge("tokenbucketpolicies", f"{POLICIES}/app-0", {"spec": {"ingress": {"rate": rate}}})
        edits += 1
        time.sleep(max(0.0, begin_s + edits / EDITS_PER_S - time.monotonic()))
    reports = fleet.reports_since(begin_s)
    ended_s = time.monotonic()
    wait_for(fleet.all_ready, "the policies' status", 0.5)
    ready_s = time.monotonic() - ended_s
    time.sleep(QUIET_S)
    window = fleet.since(before)
    return [
        Figure("edits", [edits], ""),
        *_pace(fleet, reports),
        at_most(
            "reports of an agent, most", [max(map(len, reports))], LOOP_S / pace_of(fleet).spread_s + 1, ""
        ),
        Figure("until all policies are ready after the last edit", [ready_s], "s"),
        *_budget(fleet, window),
        *request_figures([window], edits, "an edit"),
    ]


def changed(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many policies are not ready, or were not ready in between."""
    return sum(
        each["status"] != "True" or each["lastTransitionTime"] != before[name]["lastTransitionTime"]
        for name, each in now.items()
    )


def _pace(fleet: Fleet, reports: Iterable[list[float]]) -> list[Figure]:
    spread_s = pace_of(fleet).spread_s
    most = [most_in(times, spread_s) for times in reports]
    return [at_most(f"reports of an agent in a spread of {spread_s:.1f} s", most, 1, "")]


def _budget(fleet: Fleet, window: Window) -> list[Figure]:
    """Return the number of statuses that the budget permits after a burst of one second."""
    written = window.writes("tokenbucketpolicies")
    allowed = (window.seconds + 1) * ALL_EVENTS_PER_S / fleet.nodes + 1
    return [at_most("statuses of policies written", [written], allowed, "")]


def _by_controller(window: Window, reports: Iterable[list[float]]) -> float:
    """Return the number of statuses and of conditions in reports."""
    conditions = window.writes("tokenbucketnodes") - sum(map(len, reports))
    return window.writes("tokenbucketpolicies") + max(0, conditions)


def _first_second(reports: Iterable[list[float]]) -> int:
    times = sorted(at_s for each in reports for at_s in each)
    return sum(1 for at_s in times if at_s < times[0] + 1) if times else 0
