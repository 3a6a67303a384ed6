"""A suggestion from the records of agents: a valid policy with its reasons, or a clear error."""

from __future__ import annotations

import json
import re
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
SINCE = "2026-11-01T00:00:00Z"
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


def constant(bytes_per_s: int) -> OfferedReport:
    """Return the record of constant traffic, also at rates above those that an agent can measure."""
    bounds = {bytes_per_s: (0, 0, 0, 0)}
    return OfferedReport(100, 100, 100 * bytes_per_s, *[bytes_per_s] * 5, bounds, SINCE)


ODD_RATES = [
    1, 7, 999, 1_000, 1_001, 12_345, 8_499_999_999, 4_294_967_296, 8_600_000_000,
    17_200_000_000, 34_400_000_000, 124_999_999_999, 125_000_000_000, 137_438_953_472,
]  # fmt: skip


@pytest.mark.parametrize("action", ["Drop", "Delay"])
@pytest.mark.parametrize("bytes_per_s", ODD_RATES)
def test_each_rate_gives_a_valid_policy(cluster: FakeApi, run: Run, action: str, bytes_per_s: int) -> None:
    """Cut the rate and the burst at the bounds of the schema, and then promise no share."""
    answer(cluster, {"web-1": constant(bytes_per_s)})
    done = run(*SUGGEST, "--action", action)
    assert done.code == PluginExit.DONE, done.err
    (policy,) = parse_text(done.out.encode(), "suggestion").policies
    limit = policy.limits[Direction.INGRESS]
    rate, burst = limit.rate.bits_per_s, limit.burst.size_bytes
    assert rate
    assert burst
    assert rate >= min(8 * bytes_per_s, 10**12)
    promises = "at most 0 % of the bytes dropped" in done.out
    assert promises == (8 * burst >= 0.25 * rate and 8 * bytes_per_s <= 10**12)


def test_selectors_that_differ_give_names_that_differ(cluster: FakeApi, run: Run) -> None:
    """The second suggestion must not replace the policy of the first one."""
    texts = [
        "app=web", "app=web-api", "app=", "app", "!app", "app!=web", "app in (web,api)",
        "app notin (web,api)", "app=web,tier=a", "app=web-tier-a", "app-web=tier-a", "a/app=web",
        "b/app=web", "app=Web", "app=web_api", "app=web.api", f"app={63 * 'a'}", f"app={62 * 'a'}b",
        "app=web --direction ingress",
    ]  # fmt: skip
    names = {}
    for text in texts:
        answer(cluster, {"web-1": report(STEADY)})
        selector, *options = text.split(" --")
        arguments = [f"--{each.replace(' ', '=')}" for each in options]
        done = run("suggest", selector, *arguments, "-n", "shop")
        names[text] = yaml.safe_load(done.out)["metadata"]["name"]
    assert len(set(names.values())) == len(texts)
    assert (names["app=web"], names["app=web-api"]) == ("suggested-app-web", "suggested-app-web-api")
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names.values())


@pytest.mark.parametrize(
    ("one", "other"),
    [("app=web,tier=a", "tier=a,app==web"), ("app in (web,api)", "app in (api, web)"), ("a,!b", "!b,a")],
)
def test_the_same_selector_gives_the_same_name(cluster: FakeApi, run: Run, one: str, other: str) -> None:
    names = set()
    for text in (one, other):
        answer(cluster, {"web-1": report(STEADY)})
        names.add(yaml.safe_load(run("suggest", text, "-n", "shop").out)["metadata"]["name"])
    assert len(names) == 1


def test_the_start_of_the_record_is_named(cluster: FakeApi, run: Run) -> None:
    """A restart of the agent has lost the traffic before."""
    answer(cluster, {"web-1": constant(1_000_000)})
    assert f"observed:   100s since {SINCE}, of these 100s with traffic" in run(*SUGGEST).out
    answer(cluster, {"web-1": constant(1_000_000)})
    found = json.loads(run(*SUGGEST, "-o", "json").out)
    assert found["reasoning"]["ingress"]["busiest"]["since"] == SINCE


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


def test_pods_without_a_limit_in_observe_mode_are_an_error(cluster: FakeApi, run: Run) -> None:
    """Their user has to create a policy, and not to wait."""
    answer(cluster, {})
    done = run(*SUGGEST)
    assert (done.code, done.out) == (PluginExit.FAILED, "")
    assert "tokenbucket: traffic: no agent has recorded it; select the pods by a policy" in done.err


def test_too_little_data_is_an_error(cluster: FakeApi, run: Run) -> None:
    answer(cluster, {"web-1": report([10] * 59)})
    done = run(*SUGGEST)
    assert (done.code, done.out) == (PluginExit.FAILED, "")
    assert "ingress traffic: agents have recorded 59 s with traffic, and a suggestion needs 60 s" in done.err
    assert "mode Observe" in done.err


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


def test_a_release_without_live_figures_is_named(cluster: FakeApi, run: Run) -> None:
    """The values of the chart can turn them off."""
    cluster.fail(lambda seen: "/proxy/" in seen.path, 404, 'services "tokenbucket-live" not found')
    done = run(*SUGGEST)
    problem = "Service tokenbucket-system/tokenbucket-live does not exist; set live.enabled"
    assert f"node n1: {problem}" in done.err
    assert "tokenbucket: traffic: not known without these nodes" in done.err


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
