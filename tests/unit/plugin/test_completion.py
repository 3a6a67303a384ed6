"""Completion knows commands, options and names of objects, in each shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.world import World
from tokenbucket.apiserver.resources import Resource
from tokenbucket.plugin.completion import Shell, candidates, main
from tokenbucket.plugin.main import parser

BIN = Path(sys.executable).parent
PROTOCOL = "kubectl_complete-tokenbucket"
CALLS = {
    Shell.BASH: (
        "COMP_WORDS=(kubectl-tokenbucket {}); COMP_CWORD={}; _kubectl_tokenbucket; "
        'printf "%s\\n" "${{COMPREPLY[@]}}"'
    ),
    Shell.ZSH: "words=(kubectl-tokenbucket {}); CURRENT=$(({} + 1)); _kubectl_tokenbucket",
    Shell.FISH: "complete --do-complete 'kubectl-tokenbucket {}' # {}",
}
BEFORE = {
    Shell.BASH: "",
    Shell.ZSH: 'compdef() {}; compadd() { print -l "${(@P)2}" }; ',  # as in a shell without a terminal
    Shell.FISH: "",
}


def of(*words: str) -> list[str]:
    return candidates(parser(), words)


def test_commands_and_their_arguments_are_known() -> None:
    assert {"completion", "explain", "status"} <= {*of("")}
    assert of("exp") == ["explain"]
    assert of("explain", "") == ["pod"]
    assert of("completion", "") == ["bash", "fish", "zsh"]
    assert of("completion", "bash", "") == []


def test_options_and_their_values_are_known() -> None:
    assert of("explain", "pod", "--fr") == ["--from"]
    assert of("status", "-o", "") == ["json", "table", "wide", "yaml"]
    assert of("-o", "w") == ["wide"]
    assert "--namespace" in of("explain", "--n")
    assert of("explain", "--no-color", "") == ["pod"]


@pytest.mark.parametrize("words", [("explain", "pod", ""), ("-n", "shop", "explain", "pod", "web")])
def test_names_of_pods_come_from_the_namespace(
    words: tuple[str, ...], api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    World().store(api)
    if "-n" not in words:
        words = (*words[:-1], "-n", "shop", words[-1])
    monkeypatch.setattr(sys, "argv", [PROTOCOL, *words])
    assert main() == 0
    assert capsys.readouterr().out == "web-1\n:4\n"


def test_policies_namespaces_and_contexts_are_known(api: FakeApi) -> None:
    World().store(api)
    api.kinds.add(Resource("", "v1", "namespaces"))
    api.put(Resource("", "v1", "namespaces"), "shop")
    assert of("status", "-n", "shop", "") == ["web"]
    assert of("status", "-n", "") == ["shop"]
    assert of("status", "--context", "") == ["fake"]


@pytest.mark.parametrize("kubeconfig", ["none", "broken"])
def test_without_a_cluster_nothing_is_printed_but_the_directive(
    kubeconfig: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_text("a: [")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / kubeconfig))
    assert of("explain", "pod", "") == []
    assert of("status", "--context", "") == []


@pytest.mark.parametrize("shell", Shell)
@pytest.mark.parametrize(
    ("words", "found"), [("expl", "explain"), ("status -o js", "json"), ("explain ''", "pod")]
)
def test_each_shell_completes(shell: Shell, words: str, found: str, run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(run("completion", shell.value).out)
    typed = words.replace("''", "") if shell is Shell.FISH else words
    call = CALLS[shell].format(typed, len(words.split()))
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = [shell.value, "-c", f"{BEFORE[shell]}source {script}; {call}"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.stdout.split(), result.stderr) == ([found], "")
