"""Each failure to read the cluster has a message with an action, an exit status, and no traceback."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import yaml
from urllib3.exceptions import InsecureRequestWarning

from tests.unit.fake_api import FakeApi, Seen
from tests.unit.plugin.conftest import Result, Run
from tokenbucket.apiserver.resources import NODES, POLICIES
from tokenbucket.plugin.connection import connect
from tokenbucket.plugin.exit_codes import PluginExit

ODD = [".", "..", "a/b", "a%2fb"]
EXPLAIN = ("explain", "pod", "web-1", "-n", "shop")


def of_policies(seen: Seen) -> bool:
    return POLICIES.plural in seen.path


def close_two(server: socket.socket) -> None:
    """Close the connections of both requests that run side by side."""
    for _ in range(2):
        server.accept()[0].close()


def has_message(result: Result, *parts: str) -> bool:
    """Return whether one line on the standard error has all parts, and an action."""
    lines = result.err.splitlines()
    return len(lines) == 1 and all(part in lines[0] for part in (*parts, ";", "kubectl tokenbucket: "))


def kubeconfig(path: Path, server: str) -> Path:
    named = {"cluster": "c", "user": "u", "namespace": "shop"}
    content = {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": named},
            {"name": "two", "context": {**named, "cluster": "d"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": server}},
            {"name": "d", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_missing_kubeconfig_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run(*EXPLAIN, environment={"KUBECONFIG": str(tmp_path / "none")})
    assert result.code == PluginExit.USAGE
    assert has_message(result, "kubeconfig", "--context")


@pytest.mark.parametrize("content", ["", "[]", "a: [", "contexts: 3", "current-context: a\ncontexts: []"])
def test_an_invalid_kubeconfig_is_wrong_usage(content: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text(content)
    result = run(*EXPLAIN, "--kubeconfig", str(tmp_path / "broken"))
    assert result.code == PluginExit.USAGE
    assert has_message(result, str(tmp_path / "broken"))


def test_an_unknown_context_is_wrong_usage(run: Run, cluster: FakeApi, tmp_path: Path) -> None:
    result = run(*EXPLAIN, "--kubeconfig", str(kubeconfig(tmp_path / "k", cluster.url)), "--context", "three")
    assert result.code == PluginExit.USAGE
    assert has_message(result, "three")


def test_a_server_without_an_answer_is_named(run: Run, cluster: FakeApi) -> None:
    url = cluster.url
    cluster.stop()
    result = run(*EXPLAIN)
    cluster.start()
    assert result.code == PluginExit.FAILED
    assert has_message(result, url, "refused")


def test_a_server_that_closes_the_connection_is_named(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=close_two, args=[server])
        thread.start()
        path = kubeconfig(tmp_path / "k", f"https://127.0.0.1:{port}")
        result = run(*EXPLAIN, "--kubeconfig", str(path))
        thread.join()
    assert result.code == PluginExit.FAILED
    assert has_message(result, str(port), "--kubeconfig")


@pytest.mark.parametrize(
    ("status", "code", "part"),
    [
        (401, PluginExit.FAILED, "log in"),
        (
            403,
            PluginExit.FAILED,
            "list tokenbucketpolicies.tokenbucket.dev in namespace shop: forbidden: refused",
        ),
        (404, PluginExit.UNSUPPORTED, "install the chart"),
        (500, PluginExit.FAILED, "500"),
    ],
)
def test_a_rejected_request_names_the_fix(
    status: int, code: PluginExit, part: str, run: Run, cluster: FakeApi
) -> None:
    cluster.fail(of_policies, status, "refused")
    result = run(*EXPLAIN)
    assert result.code == code
    assert has_message(result, part)


def test_an_answer_of_another_server_is_an_error(run: Run, cluster: FakeApi) -> None:
    cluster.answer(of_policies, ["not", "an", "object"])
    assert has_message(run(*EXPLAIN), "not an object")


def test_a_missing_pod_is_not_found(run: Run, cluster: FakeApi) -> None:
    result = run("explain", "pod", "none", "-n", "shop")
    assert result.code == PluginExit.NOT_FOUND
    assert has_message(result, "pod none: does not exist in namespace shop")


def test_an_object_of_an_unknown_kind_names_the_chart(run: Run, cluster: FakeApi) -> None:
    cluster.fail(of_policies, 404, "404 page not found")
    result = run("status", "web", "-n", "shop")
    assert result.code == PluginExit.UNSUPPORTED
    assert has_message(result, "install the chart")


def test_a_kind_of_kubernetes_that_is_unknown_is_not_a_missing_chart(run: Run, cluster: FakeApi) -> None:
    cluster.fail(lambda seen: seen.path == NODES.path(), 404, "404 page not found")
    result = run("check")
    assert has_message(result, "does not know nodes", "--context")
    assert "chart" not in result.err


def test_a_missing_right_and_another_denial_differ(run: Run, cluster: FakeApi) -> None:
    rbac = 'pods is forbidden: User "u" cannot list resource "tokenbucketpolicies"'
    cluster.fail(of_policies, 403, rbac)
    assert has_message(run(*EXPLAIN), "the right to list tokenbucketpolicies", "ask an administrator")
    cluster.fail(of_policies, 403, "exceeded quota: pods=0")
    result = run(*EXPLAIN)
    assert has_message(result, "exceeded quota: pods=0")
    assert "right" not in result.err


def test_a_message_of_the_server_cannot_control_the_terminal(run: Run, cluster: FakeApi) -> None:
    cluster.fail(of_policies, 500, "\x1b]0;owned\x07\nsecond line")
    result = run(*EXPLAIN)
    assert has_message(result, "owned", "second line")
    assert result.err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "content",
    [
        "contexts: [{name: one, context: {cluster: c, user: u}}]\nusers: {u: {token: SECRET}}",
        "current-context: one\ncontexts:\n- name: one\n  context: {cluster: c, user: {token: SECRET}}",
        "current-context: one\ncontexts: [{name: one, {user: [SECRET]}}]",
        (
            "{current-context: one, contexts: [{name: one, context: {cluster: c, user: u}}], "
            "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], "
            "users: [{name: u, token: SECRET}]}"
        ),
        "current-context: one\ncontexts:\n- {name: u, token: SECRET}",
        "SECRET:x:0:0",
    ],
)
def test_a_kubeconfig_that_is_not_valid_stays_secret(content: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text(content)
    result = run(*EXPLAIN, "--kubeconfig", str(tmp_path / "broken"))
    assert result.code == PluginExit.USAGE
    assert has_message(result, str(tmp_path / "broken"))
    assert "SECRET" not in result.err
    assert "'str' object" not in result.err


def test_a_credential_plugin_that_fails_is_an_error(run: Run, cluster: FakeApi, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "k", cluster.url)
    content = yaml.safe_load(path.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}
    content["users"] = [{"name": "u", "user": {"exec": plugin}}]
    path.write_text(yaml.safe_dump(content))
    result = run(*EXPLAIN, "--kubeconfig", str(path))
    assert result.code == PluginExit.USAGE
    assert has_message(result, "exec", str(path))
    assert cluster.requests == []


def test_a_server_without_a_scheme_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run(*EXPLAIN, "--kubeconfig", str(kubeconfig(tmp_path / "k", "127.0.0.1:1")))
    assert result.code == PluginExit.USAGE
    assert has_message(result, "https://")


@pytest.mark.parametrize(
    ("pod", "namespace"),
    [("", "shop"), *((name, "shop") for name in ODD), *(("web-1", name) for name in ODD)],
)
def test_a_name_that_leads_to_another_path_is_wrong_usage(
    pod: str, namespace: str, run: Run, cluster: FakeApi
) -> None:
    result = run("explain", "pod", pod, "-n", namespace)
    assert result.code == PluginExit.USAGE
    assert has_message(result, "is not a name")


def test_a_kubeconfig_that_checks_no_certificate_prints_no_warning(tmp_path: Path) -> None:
    """The user chose this, as with kubectl."""
    path = kubeconfig(tmp_path / "k", "https://127.0.0.1:1")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        connect(argparse.Namespace(kubeconfig=str(path), context=None, namespace=None))
        warnings.warn("not verified", InsecureRequestWarning, stacklevel=1)
    assert found == []


@pytest.mark.parametrize("package", ["kubernetes", "rich"])
def test_a_missing_extra_names_the_command_that_installs_it(
    package: str, run: Run, cluster: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("connection", "screen"):
        monkeypatch.delitem(sys.modules, f"tokenbucket.plugin.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    result = run(*EXPLAIN)
    assert result.code == PluginExit.UNSUPPORTED
    assert has_message(result, package, "pip install '.[cli]' in a checkout")


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_may_precede_or_follow_the_command(
    place: str, run: Run, cluster: FakeApi, tmp_path: Path
) -> None:
    path = str(kubeconfig(tmp_path / "k", cluster.url))
    options = ("--kubeconfig", path, "--context", "one", "-n", "other")
    command = ("explain", "pod", "web-1")
    result = run(*options, *command) if place == "before" else run(*command, *options)
    assert result.code == PluginExit.NOT_FOUND  # in the other namespace
    assert any(seen.path.startswith("/api/v1/namespaces/other/") for seen in cluster.requests)
    assert all(seen.headers.get("Authorization") == "Bearer secret" for seen in cluster.requests)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "-A"),
        ("check", "a", "-l", "x=y"),
        ("status", "web", "-A"),
        ("status", "web", "-l", "x=y"),
        ("suggest", "app=web", "-A"),
        ("suggest", "app=web", "-l", "x=y"),
        *(("sysdump", *option) for option in (("-n", "a"), ("-A",), ("-l", "x=y"), ("-o", "json"))),
    ],
)
def test_a_shared_option_without_an_effect_is_wrong_usage(arguments: tuple[str, ...], run: Run) -> None:
    result = run(*arguments)
    assert result.code == PluginExit.USAGE
    assert has_message(result, f"{arguments[0]}: ", "remove -")


@pytest.mark.parametrize("option", [("-A",), ("-l", "app=web")])
def test_options_that_do_not_apply_are_wrong_usage(option: tuple[str, ...], run: Run) -> None:
    result = run(*EXPLAIN, *option)
    assert result.code == PluginExit.USAGE
    assert has_message(result, f"remove {option[0]}")


def test_the_namespace_of_the_context_is_the_default(run: Run, cluster: FakeApi, tmp_path: Path) -> None:
    run("explain", "pod", "web-1", "--kubeconfig", str(kubeconfig(tmp_path / "k", cluster.url)))
    assert cluster.seen(lambda seen: seen.path == "/api/v1/namespaces/shop/pods/web-1")


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "tokenbucket.plugin", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.startswith("kubectl tokenbucket ")
