"""``kubectl tokenbucket top`` against an API server and agents in this process."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugin.conftest import Result, Run
from tests.unit.plugin.live_cluster import LiveCluster, LivePod, steady
from tokenbucket.core.api.policy import Direction, Mode
from tokenbucket.core.limits.stats import Stats
from tokenbucket.plugin.background import started
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.top import Watcher

Top = Callable[..., Result]
PATIENCE_S = 100.0


@pytest.fixture
def pods() -> list[LivePod]:
    """Provide three limited pods on two nodes, and one in another namespace."""
    return [
        LivePod("half", "a"),
        LivePod("full", "a", limits={Direction.INGRESS: steady(1_250_000, dropped=40)}),
        LivePod(
            "slow",
            "b",
            limits={Direction.EGRESS: steady(250_000, delayed=10, wait_ns=20_000_000)},
            policy="out",
        ),
        LivePod("hidden", "a", namespace="bank"),
    ]


@pytest.fixture
def cluster(tmp_path: Path, pods: list[LivePod]) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path, pods) as found:
        yield found


@pytest.fixture
def top(run: Run, cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch) -> Top:
    """Run the command once."""
    monkeypatch.setenv("COLUMNS", "200")

    def top(*arguments: str) -> Result:
        return run("--kubeconfig", str(cluster.kubeconfig), "top", "--once", "--interval", "0.5", *arguments)

    return top


def lines(result: Result) -> dict[str, dict[str, Any]]:
    """Return the documents by pod, or by node if it did not answer."""
    documents = map(json.loads, result.out.splitlines())
    return {each.get("pod", each["node"]): each for each in documents}


def test_rates_come_from_the_counters_and_the_clock_of_the_node(top: Top) -> None:
    result = top("-o", "json")
    assert result.code == PluginExit.DONE
    found = lines(result)
    assert found.keys() == {"half", "full", "slow"}
    assert found["half"]["perSecond"]["bits"] == 5_000_000
    assert found["half"]["perSecond"]["share"] == 0.5
    assert (found["full"]["perSecond"]["share"], found["full"]["perSecond"]["dropped"]) == (1, 40)
    assert (found["slow"]["perSecond"]["delayed"], found["slow"]["perSecond"]["waitSeconds"]) == (10, 0.02)
    assert (found["slow"]["direction"], found["slow"]["policy"]) == ("egress", "out")


def test_a_request_names_the_pods_that_the_user_may_list_and_no_others(
    top: Top, cluster: LiveCluster, pods: list[LivePod]
) -> None:
    """Send each node the uids of its own pods."""
    top()
    uids = {pod.name: pod.uid for pod in pods}
    assert set(cluster.asked) == {
        ("a", frozenset({uids["half"], uids["full"]})),
        ("b", frozenset({uids["slow"]})),
    }


def test_a_node_without_an_answer_is_listed_beside_the_others(top: Top, cluster: LiveCluster) -> None:
    cluster.fail("b")
    result = top()
    assert result.code == PluginExit.UNKNOWN
    assert "half" in result.out
    assert "\nnode b: its agent does not answer; check the pod of the agent" in result.out
    assert "1 of 2 nodes" in result.out
    assert lines(top("-o", "json"))["b"]["problem"]


def test_without_any_answer_the_state_is_unknown(top: Top, cluster: LiveCluster) -> None:
    for node in "ab":
        cluster.fail(node)
    result = top()
    assert result.code == PluginExit.UNKNOWN
    assert "no limit to show of the nodes that answered" in result.out
    assert "nodes a, b: its agent does not answer" in result.out


def test_without_a_pod_no_figures_are_shown(top: Top, pods: list[LivePod]) -> None:
    """None of none is no answer."""
    pods.clear()
    result = top()
    assert result.code == PluginExit.DONE
    assert result.out.splitlines()[0] == "namespace shop: no pod on a node, with these options"


def test_a_user_without_the_right_learns_which_one_is_missing(top: Top) -> None:
    result = top("--live-service", "other/tokenbucket-live")
    assert result.code == PluginExit.FAILED
    assert "create services/proxy tokenbucket-live:live in namespace other is missing" in result.err


@pytest.mark.parametrize("service", ["name", "/name", "namespace/", "a/b/c"])
def test_an_invalid_service_is_rejected(top: Top, service: str) -> None:
    result = top("--live-service", service)
    assert (result.code, "must be NAMESPACE/NAME" in result.err) == (PluginExit.USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["full", "half", "slow"]),
        (("--sort", "name"), ["full", "half", "slow"]),
        (("--sort", "wait"), ["slow", "full", "half"]),
        (("--sort", "delayed"), ["slow", "full", "half"]),
        (("--sort", "dropped"), ["full", "half", "slow"]),
        (("--only-limited",), ["full", "slow"]),
        (("--policy", "out"), ["slow"]),
        (("-A",), ["full", "hidden", "half", "slow"]),
        (("-A", "--sort", "name"), ["hidden", "full", "half", "slow"]),
        (("-n", "bank"), ["hidden"]),
    ],
)
def test_rows_are_selected_and_sorted(top: Top, arguments: tuple[str, ...], expected: list[str]) -> None:
    assert list(lines(top("-o", "json", *arguments))) == expected


def test_selectors_are_left_to_the_api_server(top: Top, cluster: LiveCluster) -> None:
    top("-l", "app=web", "--node", "a")
    wanted = {"labelSelector": ["app=web"], "fieldSelector": ["spec.nodeName=a"]}
    assert any({**query, **wanted} == query for query in cluster.queries)


def test_a_limit_that_is_not_enforced_never_looks_enforced(top: Top, cluster: LiveCluster) -> None:
    """Show the reason beside the figures, and also without a slot."""
    reason = {"direction": "ingress", "reason": "Shadowed", "effect": "failed", "message": ""}
    cluster.pods[:] = [
        LivePod("shadowed", "a", reasons=[reason]),
        LivePod(
            "missing", "a", limits={}, reasons=[{**reason, "reason": "NoInterface", "effect": "pending"}]
        ),
        LivePod("watched", "a", mode=Mode.OBSERVE),
    ]
    found = lines(top("-o", "json"))
    assert {name: each["state"] for name, each in found.items()} == {
        "shadowed": "Shadowed",
        "missing": "NoInterface",
        "watched": "Observe",
    }
    assert found["missing"]["perSecond"] is None
    assert lines(top("-o", "json", "--only-limited")).keys() == {"shadowed", "missing"}
    assert re.search(r"missing .*NoInterface", top().out)


def test_a_dry_run_shows_the_share_that_it_would_drop(top: Top, cluster: LiveCluster) -> None:
    """Compute the share from the traffic since the last reading, beside a limit that is enforced."""

    def observed(seconds: int) -> Stats:
        excess = 12_000 * (seconds - 1)
        return Stats(conform_bytes=988_000 * seconds, too_fast_bytes=excess, forwarded_bytes=excess)

    cluster.pods[:] = [
        LivePod("watched", "a", mode=Mode.OBSERVE, limits={Direction.INGRESS: observed}),
        LivePod("half", "a"),
    ]
    found = lines(top("-o", "json"))
    assert found["watched"]["dryRunShares"] == {"dropped": 0.012}
    assert "dryRunShares" not in found["half"]
    assert re.search(r"WOULD.*\n.*watched .*drop 1\.2 %", top().out)


@pytest.mark.parametrize("columns", [80, 200])
def test_a_screen_fits_its_width(top: Top, cluster: LiveCluster, columns: int, monkeypatch: Any) -> None:
    """Keep all figures in 80 columns, with long names and two namespaces, and print no color unless asked."""
    long = LivePod(
        "a-long-deployment-name-5d8f7c6b9-abcde",
        "ip-10-0-0-1.internal",
        "a-long-namespace",
        "a-long-policy-name",
    )
    long.limits[Direction.EGRESS] = steady(1_250_000, dropped=999_999, delayed=1, wait_ns=10**9)
    cluster.pods.append(long)
    monkeypatch.setenv("COLUMNS", str(columns))
    result = top("-A")
    assert max(map(len, result.out.splitlines())) <= columns
    assert "\x1b" not in result.out
    for figure in ("RATE", "USED", "WAIT", "DELAY/S", "DROP/S", "POLICY", "1M", "100%", "10Mbit"):
        assert figure in result.out


def test_pods_of_one_workload_differ_on_a_narrow_screen(
    top: Top, cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the ends of their names, which are the only difference."""
    cluster.pods[:] = [
        LivePod(f"a-long-deployment-name-of-a-shop-5d8f7c6b9-{end}", "a") for end in ("abcde", "fghij")
    ]
    monkeypatch.setenv("COLUMNS", "80")
    shown = top().out
    assert "abcde " in shown
    assert "fghij " in shown


def test_control_characters_of_an_agent_do_not_reach_the_terminal(top: Top, cluster: LiveCluster) -> None:
    cluster.pods[0].name = "web\x1b[2J"
    assert "\x1b" not in top().out


def test_a_late_node_delays_no_screen_and_gets_one_request(
    cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Show the other nodes meanwhile, and its answer when it is there."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.main import parser

    cluster.held["b"] = threading.Event()
    options = parser().parse_args(["--kubeconfig", str(cluster.kubeconfig), "top"])
    connection = connect(options)
    watcher = Watcher(connection, started(lambda: ("tokenbucket-system", "tokenbucket-live")), options)
    for _ in range(3):
        rows = watcher.read(0.2)
        while len(rows) < 2:  # the machine is slow, but not the node
            rows = watcher.read(0.2)
        assert {row.node for row in rows} == {"a"}
        assert watcher.silent == {"b": "no answer yet"}
    assert [node for node, _ in cluster.asked].count("b") == 1
    cluster.held["b"].set()
    while watcher.silent:
        rows = watcher.read(PATIENCE_S)
    assert {row.node for row in rows} == {"a", "b"}


def test_a_failed_list_of_pods_keeps_the_screen(
    cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Show the pods of the last list, and the error."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.main import parser

    monkeypatch.setattr("tokenbucket.plugin.top._LIST_S", 0.0)
    options = parser().parse_args(["--kubeconfig", str(cluster.kubeconfig), "top"])
    connection = connect(options)
    watcher = Watcher(connection, started(lambda: ("tokenbucket-system", "tokenbucket-live")), options)
    before = {row.pod for row in watcher.read(PATIENCE_S)}
    get = cluster.get
    monkeypatch.setattr(cluster, "get", lambda _: (500, {"message": "etcd"}))
    while "etcd" not in watcher.view(rows := watcher.read(PATIENCE_S)).title:
        assert {row.pod for row in rows} == before
    assert {row.pod for row in rows} == before
    assert watcher.exit_code == PluginExit.UNKNOWN
    monkeypatch.setattr(cluster, "get", get)
    while "etcd" in watcher.view(watcher.read(PATIENCE_S)).title:
        pass


def test_once_awaits_answers_that_take_longer_than_the_interval(
    top: Top, cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answer the second request to a node only after the interval."""
    post = cluster.post

    def late(path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        if len(cluster.asked) >= 2:
            time.sleep(1)
        return post(path, content)

    monkeypatch.setattr(cluster, "post", late)
    result = top("-o", "json")
    assert result.code == PluginExit.DONE, result.out


def test_a_late_node_does_not_delay_the_first_screen(
    cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Yield a screen while the node still holds its answer."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.main import parser

    monkeypatch.setattr("tokenbucket.plugin.top._ONCE_S", 2 * PATIENCE_S)
    cluster.held["a"] = cluster.held["b"] = threading.Event()
    options = parser().parse_args(["--kubeconfig", str(cluster.kubeconfig), "top"])
    watcher = Watcher(connect(options), started(lambda: ("tokenbucket-system", "tokenbucket-live")), options)
    assert next(watcher.readings()) == []
    assert watcher.silent == dict.fromkeys("ab", "no answer yet")


@pytest.mark.parametrize(("silent", "code"), [("", PluginExit.DONE), ("b", PluginExit.UNKNOWN)])
@pytest.mark.parametrize("output", ["json", "yaml"])
def test_ctrl_c_ends_a_stream_of_documents_with_its_state(
    output: str, silent: str, code: PluginExit, cluster: LiveCluster
) -> None:
    for node in silent:
        cluster.fail(node)
    command = [sys.executable, "-m", "tokenbucket.plugin", "--kubeconfig", str(cluster.kubeconfig)]
    process = subprocess.Popen(
        [*command, "top", "-o", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (code, b"")


def test_ctrl_c_restores_the_terminal(cluster: LiveCluster, tmp_path: Path) -> None:
    """Leave the alternate screen, show the cursor, and print no traceback, with the last screen."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tokenbucket.plugin", "--kubeconfig", str(cluster.kubeconfig), "top"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    output = b""
    while b"half" not in output:
        output += _read(master)
    process.send_signal(signal.SIGINT)
    while chunk := _read(master):
        output += chunk
    assert process.wait(PATIENCE_S) == PluginExit.DONE
    text = output.decode()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text
    assert "half" in text.rpartition("\x1b[?1049l")[2]


def _read(descriptor: int) -> bytes:
    """Return what a terminal shows next; nothing after its end."""
    ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
    assert ready
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""
