"""The check of nodes by short-lived pods: true results, exit statuses, and no pod left behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tokenbucket.apiserver.resources import NODES, PODS, REPORTS
from tokenbucket.core.status.node_check import Ability, Finding, NodeCheck, State
from tokenbucket.plugin import check_pods
from tokenbucket.plugin.exit_codes import PluginExit

FQ = Finding("fq", State.NO_DELAY, "the kernel has no fq", "load the module sch_fq")
BPFFS = Finding("bpffs", State.NO_LIMIT, "/sys/fs/bpf has none", "mount it at boot")
OK = Finding("program", State.OK, "the kernel accepts the program")


@pytest.fixture
def nodes(cluster: FakeApi, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    monkeypatch.setattr(check_pods, "_POLL_S", 0.01)
    for name in ("a", "b"):
        cluster.put(NODES, name)
    return cluster


def checks(api: FakeApi) -> list[dict[str, Any]]:
    return [pod for pod in api.list(PODS)["items"] if pod["metadata"]["name"].startswith("tokenbucket-check")]


def of_log(node: str) -> Any:
    """Return the requests for the log of the pod of a node. Pods are numbered in the order of nodes."""
    number = {"a": 0, "b": 1}[node]
    return lambda seen: seen.path.endswith(f"-{number}/log")


def run_pods(api: FakeApi, logs: dict[str, Any], status: Any = "Succeeded") -> None:
    """Run the pods as a kubelet does, with these logs."""
    created: Any = api.put

    def put(resource: Any, name: str, namespace: str = "", **content: Any) -> Any:
        if resource == PODS and name.startswith("tokenbucket-check"):
            content["status"] = {"phase": status} if isinstance(status, str) else status
        return created(resource, name, namespace, **content)

    api.put = put  # type: ignore[method-assign]
    for node, log in logs.items():
        api.answer(of_log(node), log)


def result(node: str, *findings: Finding) -> dict[str, Any]:
    return NodeCheck(node, findings).as_document()


@pytest.mark.parametrize(
    ("findings", "ability", "code"),
    [
        ([OK], Ability.DELAY, PluginExit.DONE),
        ([OK, FQ], Ability.DROP, PluginExit.DEVIATES),
        ([FQ, BPFFS], Ability.NONE, PluginExit.DEVIATES),
    ],
)
def test_the_exit_status_is_that_of_the_worst_node(
    nodes: FakeApi, run: Run, findings: list[Finding], ability: Ability, code: PluginExit
) -> None:
    run_pods(nodes, {"a": result("a", OK), "b": result("b", *findings)})
    done = run("check", "-n", "shop", "-o", "json")
    assert done.code == code
    assert [(each["node"], each["result"]) for each in json.loads(done.out)["nodes"]] == [
        ("a", "Delay"),
        ("b", ability.value),
    ]
    assert checks(nodes) == []


def test_a_problem_has_its_cause_and_the_next_step(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"a": result("a", OK, FQ)})
    done = run("check", "a", "-n", "shop")
    assert "a      Drop         fq: the kernel has no fq; load the module sch_fq" in done.out


def test_a_pod_that_ends_without_a_result_is_unknown(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"a": {"text": "tokenbucket: needs root"}}, "Failed")
    done = run("check", "a", "-n", "shop")
    assert done.code == PluginExit.UNKNOWN
    assert "unknown" in done.out
    assert checks(nodes) == []


def waiting(reason: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "no such image"}}
    return {"phase": "Pending", "containerStatuses": [{"state": state}]}


def test_a_pod_that_does_not_start_is_unknown_and_removed(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {}, waiting("ContainerCreating"))
    done = run("check", "a", "-n", "shop", "--timeout", "1")
    assert done.code == PluginExit.UNKNOWN
    assert "no result after 1 s: ContainerCreating" in done.out
    assert checks(nodes) == []


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_the_node_does_not_get_ends_the_wait(nodes: FakeApi, run: Run, reason: str) -> None:
    """The timeout is longer than that of the test."""
    run_pods(nodes, {}, waiting(reason))
    done = run("check", "-n", "shop", "--image", "none/image:1", "--timeout", "86400")
    assert done.code == PluginExit.UNKNOWN
    problem = f"image: none/image:1: {reason}: no such image; set --image to an image"
    assert done.out.count(problem) == 2
    assert checks(nodes) == []


def put_agent(api: FakeApi, image: str) -> None:
    labels = {"app.kubernetes.io/part-of": "tokenbucket", "app.kubernetes.io/component": "agent"}
    containers = [{"name": "proxy", "image": "proxy:1"}, {"name": "agent", "image": image}]
    api.put(REPORTS, "a", status={"agent": {"release": "limits/mine"}})
    api.put(PODS, "mine-agent", "limits", metadata={"labels": labels}, spec={"containers": containers})


def image_of(api: FakeApi) -> str:
    (body,) = (json.loads(seen.body) for seen in api.requests if seen.method == "POST")
    return str(body["spec"]["containers"][0]["image"])


def test_the_image_is_that_of_an_installed_agent(nodes: FakeApi, run: Run) -> None:
    """A cluster without access to the public registry has it."""
    put_agent(nodes, "registry/tokenbucket@sha256:1")
    run_pods(nodes, {"a": result("a", OK)})
    assert run("check", "a", "-n", "shop").code == PluginExit.DONE
    assert image_of(nodes) == "registry/tokenbucket@sha256:1"


def test_without_the_right_to_read_agents_the_image_is_the_published_one(nodes: FakeApi, run: Run) -> None:
    put_agent(nodes, "registry/tokenbucket@sha256:1")
    run_pods(nodes, {"a": result("a", OK)})
    nodes.fail(lambda seen: "/namespaces/limits/" in seen.path, 403, "no")
    assert run("check", "a", "-n", "shop").code == PluginExit.DONE
    assert image_of(nodes).startswith("ghcr.io/tokenbucket/tokenbucket:")


def test_no_pod_is_left_if_a_later_one_is_rejected(nodes: FakeApi, run: Run) -> None:
    nodes.fail(lambda seen: seen.method == "POST" and seen.body.count('"nodeName": "b"') > 0, 403, "no")
    done = run("check", "-n", "shop")
    assert done.code == PluginExit.FAILED
    assert "create pods in namespace shop" in done.err
    assert [seen.method for seen in nodes.requests].count("DELETE") == 1
    assert checks(nodes) == []


@pytest.mark.parametrize("status", [403, 409, 422])
def test_the_error_of_a_pod_that_is_rejected_is_not_masked(nodes: FakeApi, run: Run, status: int) -> None:
    """A user without rights may not delete pods either."""
    nodes.fail(lambda seen: seen.method == "POST", status, "violates PodSecurity")
    nodes.fail(lambda seen: seen.method == "DELETE", 403, "no")
    done = run("check", "a", "-n", "shop")
    assert "violates PodSecurity" in done.err
    assert "removed" not in done.err


def test_pods_that_are_left_are_named_beside_the_error(nodes: FakeApi, run: Run) -> None:
    nodes.fail(lambda seen: seen.method == "POST", 504, "too slow")
    nodes.fail(lambda seen: seen.method == "DELETE", 500, "down")
    done = run("check", "a", "-n", "shop")
    assert done.err.index("too slow") < done.err.index(
        "kubectl delete pods -n shop -l tokenbucket.dev/check="
    )


def test_a_node_that_is_named_twice_has_one_pod(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"a": result("a", OK)})
    done = run("check", "a", "a", "-n", "shop", "-o", "json")
    assert [each["node"] for each in json.loads(done.out)["nodes"]] == ["a"]
    assert [seen.method for seen in nodes.requests].count("POST") == 1
    assert checks(nodes) == []


def test_a_log_that_cannot_be_read_leaves_the_other_results(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"b": result("b", OK)})
    nodes.fail(of_log("a"), 400, "container is not available")
    done = run("check", "-n", "shop", "-o", "json")
    assert done.code == PluginExit.UNKNOWN
    first, second = json.loads(done.out)["nodes"]
    assert "container is not available" in json.dumps(first)
    assert (first["result"], second["result"]) == ("unknown", "Delay")


def test_a_pod_that_the_kubelet_rejects_has_its_cause(nodes: FakeApi, run: Run) -> None:
    status = {"phase": "Failed", "reason": "OutOfcpu", "message": "not enough cpu"}
    run_pods(nodes, {}, status)
    nodes.fail(of_log("a"), 400, "container is not available")
    done = run("check", "a", "-n", "shop")
    assert done.code == PluginExit.UNKNOWN
    assert "not enough cpu" in done.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_pod_is_left_after_a_signal(nodes: FakeApi, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tokenbucket.plugin", "check", "-n", "shop"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(checks(nodes)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        created = len(checks(nodes))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (created, checks(nodes), errors) == (2, [], "")
    assert process.returncode == PluginExit.FAILED


def test_a_pod_is_removed_as_its_kubelet_confirms_it(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"a": result("a", OK)})
    run("check", "a", "-n", "shop")
    (query,) = (seen.query for seen in nodes.requests if seen.method == "DELETE")
    assert "gracePeriodSeconds" not in query


def test_no_pod_is_left_after_an_interrupt(nodes: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_pods.time, "sleep", interrupt)
    assert run("check", "-n", "shop").code == PluginExit.FAILED
    assert len([seen for seen in nodes.requests if seen.method == "POST"]) == 2
    assert checks(nodes) == []


def test_an_interrupted_removal_names_the_command_for_the_rest(
    nodes: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Press Ctrl-C twice: while the pods run, and while they are removed."""
    request = check_pods.Connection.request

    def interrupt(connection: check_pods.Connection, method: str, *arguments: Any, **more: Any) -> Any:
        if method in {"GET", "DELETE"} and checks(nodes):
            raise KeyboardInterrupt
        return request(connection, method, *arguments, **more)

    monkeypatch.setattr(check_pods.Connection, "request", interrupt)
    done = run("check", "-n", "shop")
    assert done.code == PluginExit.FAILED
    assert len(checks(nodes)) == 2
    assert re.search(r"interrupted; run kubectl delete pods -n shop -l tokenbucket.dev/check=\w+$", done.err)


def test_a_pod_that_cannot_be_removed_is_named(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"a": result("a", OK)})
    nodes.fail(lambda seen: seen.method == "DELETE", 500, "down")
    done = run("check", "a", "-n", "shop")
    assert done.code == PluginExit.FAILED
    assert "kubectl delete pods -n shop -l tokenbucket.dev/check=" in done.err


def test_the_pod_has_the_rights_of_the_agent_and_no_more(nodes: FakeApi, run: Run) -> None:
    run_pods(nodes, {"a": result("a", OK)})
    run("check", "a", "-n", "shop", "--image", "registry/image:1")
    (body,) = (json.loads(seen.body) for seen in nodes.requests if seen.method == "POST")
    (container,) = body["spec"]["containers"]
    assert container["image"] == "registry/image:1"
    assert container["securityContext"]["privileged"] is False
    assert body["spec"]["automountServiceAccountToken"] is False
    assert body["spec"]["nodeName"] == "a"


def test_a_node_that_does_not_exist_is_an_error(nodes: FakeApi, run: Run) -> None:
    done = run("check", "z", "-n", "shop")
    assert done.code == PluginExit.NOT_FOUND
    assert "node z" in done.err


def test_the_pod_has_the_capabilities_of_the_chart() -> None:
    chart = Path(__file__).parents[3] / "charts" / "tokenbucket" / "templates" / "_agent.tpl"
    (line,) = re.findall(r"^\[NET_ADMIN.*\]$", chart.read_text(), re.MULTILINE)
    assert re.findall(r"[A-Z_]{3,}", re.sub(r"\{\{.*?\}\}", "", line)) == check_pods._CAPABILITIES
