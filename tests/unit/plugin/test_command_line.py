"""The command line ends with an exit status and a message, for any words and any output."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.plain_text import plain

PLUGIN = f"{sys.executable} -m tokenbucket.plugin"


@pytest.mark.parametrize("command", ["--help", "status --help", "--version", "completion bash"])
def test_a_full_disk_is_an_error_without_a_traceback(command: str) -> None:
    done = subprocess.run(f"{PLUGIN} {command} > /dev/full", shell=True, capture_output=True, text=True)
    assert done.returncode == PluginExit.FAILED
    (line,) = done.stderr.splitlines()
    assert "No space left on device; " in line


@pytest.mark.parametrize("command", ["--help", "completion bash"])
def test_a_pipe_that_its_reader_closed_ends_without_a_message(command: str) -> None:
    script = f"exec 3> >(exec true); wait $!; {PLUGIN} {command} >&3"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (PluginExit.FAILED, "")


def test_a_closed_output_is_no_error() -> None:
    done = subprocess.run(["bash", "-c", f"{PLUGIN} completion bash >&-"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (PluginExit.DONE, "")


@pytest.mark.parametrize("file", ["/", "/proc/none/x"])
def test_a_file_that_cannot_be_written_is_named(file: str, run: Run, cluster: FakeApi) -> None:
    done = run("sysdump", "--file", file)
    assert done.code == PluginExit.FAILED
    (line,) = done.err.splitlines()
    assert f"{file}" in line
    assert ";" in line


@pytest.mark.parametrize("columns", ["0", "1", "5"])
def test_the_narrowest_terminal_has_an_explanation(columns: str, run: Run, cluster: FakeApi) -> None:
    done = run("explain", "pod", "web-1", "-n", "shop", environment={"COLUMNS": columns})
    assert "web-1" in done.out
    assert done.err == ""


def test_a_pod_can_be_named_as_in_kubectl(run: Run, cluster: FakeApi) -> None:
    by_words, by_path = (
        run("explain", "pod", "web-1", "-n", "shop"),
        run("explain", "-n", "shop", "pod/web-1"),
    )
    assert "web-1" in by_words.out
    assert by_path == by_words
    assert run("explain", "pod", "web-1", "-n", "shop", "--from", "pod/web-1").code != PluginExit.USAGE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "-o", "bogus"), "table, wide, json, yaml"),
        (("top", "--sort", "bogus"), "used, rate"),
        (("completion", "bogus"), "bash, fish, zsh"),
        (("suggest", "app=web", "--direction", "bogus"), "ingress, egress"),
    ],
)
def test_the_error_of_a_fixed_word_names_all_words(arguments: tuple[str, ...], words: str, run: Run) -> None:
    done = run(*arguments)
    assert done.code == PluginExit.USAGE
    assert f"'bogus': must be one of {words}" in done.err


@pytest.mark.parametrize("value", ["-5", "0", "nan", "1.5", ""])
def test_the_time_of_a_check_is_a_positive_number(value: str, run: Run) -> None:
    done = run("check", f"--timeout={value}")
    assert done.code == PluginExit.USAGE
    assert "must be an integer of at least 1" in done.err


def test_control_characters_are_replaced() -> None:
    assert plain("a\x1b[2Jb\u202e\x9b\n") == "a\ufffd[2Jb\ufffd\ufffd\ufffd"


def test_the_parser_imports_only_what_it_needs() -> None:
    """The first screen of top, and completion, would otherwise wait for the modules of other commands."""
    command = "import sys; from tokenbucket.plugin import main; main.parser(); print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    unwanted = {
        "kubernetes",
        "rich",
        "yaml",
        "tokenbucket.core.api.parse",
        "tokenbucket.core.status.node_status",
    }
    assert unwanted.isdisjoint(imported.stdout.split())
