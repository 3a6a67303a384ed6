"""A suggestion from the records of agents: a valid policy with its reasons, or a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tokenbucket.apiserver.resources import PODS
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.offered import SAMPLE_S, Offered
from tokenbucket.core.limits.offered_report import OfferedReport
from tokenbucket.manifests import parse_text
from tokenbucket.plugin.exit_codes import PluginExit

MBIT = 125_000
"""Bytes."""


def report(seconds: list[int]) -> OfferedReport:
    """Return the record of seconds with these megabits."""
    offered = Offered()
    for megabits in seconds:
        offered.add([megabits * MBIT // 10] * 10, [SAMPLE_S] * 10)
    found = offered.report()
    assert found
    return found


def answer(api: FakeApi, reports: dict[str, OfferedReport], direction: str = "ingress") -> None:
    """Make the agent of the node answer, through the relay."""
    pods = [
        {
            "uid": f"{name}-uid",
            "pod": name,
            "limits": [{"direction": direction, "offered": found.as_document()}],
        }
        for name, found in reports.items()
    ]
    document = {"version": 1, "node": "n1", "reconciled": True, "pods": pods}
    api.answer(lambda seen: seen.method == "POST" and "/proxy/" in seen.path, document)


SUGGEST = ("suggest", "app=web", "-n", "shop")
STEADY = [10] * 100
BURSTY = [1] * 990 + [10] * 10


def test_the_manifest_is_a_valid_policy_for_the_selected_pods(cluster: FakeApi, run: Run) -> None:
    answer(cluster, {"web-1": report(STEADY)})
    done = run(*SUGGEST, "--name", "limit")
    assert done.code == PluginExit.DONE
    (policy,) = parse_text(done.out.encode(), "suggestion").policies
    assert (policy.namespace, policy.name) == ("shop", "limit")
    assert policy.selector.matches({"app": "web"})
    assert not policy.selector.matches({"app": "db"})
    assert 10_000_000 <= (policy.limits[Direction.INGRESS].rate.bits_per_s or 0) <= 10_500_000
    assert set(policy.limits) == {Direction.INGRESS}


def test_the_reasons_are_comments(cluster: FakeApi, run: Run) -> None:
    answer(cluster, {"web-1": report(STEADY)})
    comments = [line for line in run(*SUGGEST).out.splitlines() if line.startswith("#")]
    text = "\n".join(comments)
    for part in (
        "observed:   100s",
        "99 % 10.",
        "highest",
        "0.5 s of the rate",
        "at most 0 % of the bytes dropped",
    ):
        assert part in text


def test_the_rate_is_that_of_the_busiest_pod(cluster: FakeApi, run: Run) -> None:
    cluster.put(
        PODS, "web-2", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "n1"}, status={}
    )
    answer(cluster, {"web-1": report(STEADY), "web-2": report([20] * 100)})
    found = json.loads(run(*SUGGEST, "-o", "json").out)["reasoning"]["ingress"]
    assert found["pods"] == 2
    assert found["busiest"]["pod"] == "web-2"
    assert 20_000_000 <= found["bitsPerSecond"] <= 21_000_000


@pytest.mark.parametrize("action", ["Drop", "Delay"])
def test_the_expected_share_depends_on_the_action(cluster: FakeApi, run: Run, action: str) -> None:
    """Five of a thousand seconds have forty times the rate of the others."""
    answer(cluster, {"web-1": report([1] * 990 + [40] * 5 + [1] * 5)})
    done = run(*SUGGEST, "--action", action)
    words = {"Drop": "dropped", "Delay": "delayed"}
    line = next(line for line in done.out.splitlines() if "expected" in line)
    assert words[action] in line
    assert "at most 0 %" not in line
    assert yaml.safe_load(done.out)["spec"]["ingress"]["exceedAction"] == action


def test_too_little_data_is_an_error(cluster: FakeApi, run: Run) -> None:
    answer(cluster, {"web-1": report([10] * 59)})
    done = run(*SUGGEST)
    assert (done.code, done.out) == (PluginExit.FAILED, "")
    assert "59 s with traffic, and 60 s are needed" in done.err
    assert "mode Observe" in done.err


def test_pods_without_a_limit_in_observe_mode_are_an_error(cluster: FakeApi, run: Run) -> None:
    answer(cluster, {})
    done = run(*SUGGEST)
    assert "at most 0 s" in done.err


def test_a_selector_without_pods_is_an_error(cluster: FakeApi, run: Run) -> None:
    done = run("suggest", "app=web", "-n", "empty")
    assert done.code == PluginExit.NOT_FOUND


def test_a_silent_node_is_named(cluster: FakeApi, run: Run) -> None:
    cluster.put(
        PODS, "web-2", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "n2"}, status={}
    )
    cluster.fail(lambda seen: "/nodes/n2/" in seen.path, 503, "no agent")
    answer(cluster, {"web-1": report(STEADY)})
    done = run(*SUGGEST)
    assert done.code == PluginExit.UNKNOWN
    assert "# not considered: node n2" in done.out


def test_without_any_answer_the_nodes_are_named(cluster: FakeApi, run: Run) -> None:
    cluster.fail(lambda seen: "/nodes/n1/" in seen.path, 503, "no agent")
    done = run(*SUGGEST)
    assert (done.code, done.out) == (PluginExit.UNKNOWN, "")
    assert "not considered: node n1" in done.err


def test_a_direction_without_enough_data_is_named(cluster: FakeApi, run: Run) -> None:
    answer(cluster, {"web-1": report(STEADY)})
    assert "# egress: not suggested: " in run(*SUGGEST).out
    answer(cluster, {"web-1": report(STEADY)})
    assert json.loads(run(*SUGGEST, "-o", "json").out)["notSuggested"].keys() == {"egress"}


@pytest.mark.parametrize("most", ["nan", "-1", "101", "x"])
def test_a_share_is_from_0_to_100_percent(run: Run, most: str) -> None:
    assert run(*SUGGEST, f"--most={most}").code == PluginExit.USAGE


@pytest.mark.parametrize(
    ("text", "selected", "others"),
    [
        ("app=web", {"app": "web"}, {"app": "db"}),
        ("app==web,tier!=db", {"app": "web", "tier": "x"}, {"app": "web", "tier": "db"}),
        ("tier in (a, b),!old", {"tier": "b"}, {"tier": "b", "old": "1"}),
        ("tier notin (a,b), app", {"tier": "c", "app": ""}, {"tier": "a", "app": ""}),
        ("example.com/app=web", {"example.com/app": "web"}, {}),
    ],
)
def test_a_selector_selects_the_same_pods_in_the_policy(
    cluster: FakeApi, run: Run, text: str, selected: dict[str, str], others: dict[str, str]
) -> None:
    answer(cluster, {"web-1": report(STEADY)})
    (policy,) = parse_text(run("suggest", text, "-n", "shop").out.encode(), "suggestion").policies
    assert policy.selector.matches(selected)
    assert not policy.selector.matches(others)


@pytest.mark.parametrize(
    "text",
    [
        "app=web=db",
        "app in web",
        "=web",
        "a b",
        "",
        " ",
        "app=web,",
        "app=web,app=api",
        "(a=b",
        "a=b)",
        "a in (b,c",
    ],
)
def test_an_invalid_selector_is_wrong_usage(cluster: FakeApi, run: Run, text: str) -> None:
    done: Any = run("suggest", text, "-n", "shop")
    assert done.code == PluginExit.USAGE
    assert "selector" in done.err
