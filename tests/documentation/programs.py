"""Checks of one command: which programs there are, and what each takes."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Callable, Iterator

from tests.documentation.blocks import ROOT
from tests.documentation.helm import helm_problems
from tests.documentation.kubectl import Arguments, kubectl_problems, words_of
from tests.documentation.shell import Command
from tokenbucket import cli
from tokenbucket.plugin import main as plugin

_MAKEFILE = (ROOT / "Makefile").read_text()
_TARGETS = {
    target
    for line in re.findall(r"^([a-z][\w .-]*):(?!=)", _MAKEFILE, re.MULTILINE)
    for target in line.split()
}
_FOREIGN = words_of("""
    apt-get bpftool cat cd cosign curl docker echo export git grep install ip iperf3 jq kill kustomize ln
    mkdir modprobe oras pip pipx sed source sysctl tar tc wait
""")
_REPOSITORY = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name != "build")


def command_problems(command: Command, made: set[str]) -> Iterator[str]:
    """Yield the problems of a command. ``made`` has the files that earlier ones made, and gets more."""
    program, *words = command.words
    made.update(command.writes)
    yield from _of_program(program.rpartition("/")[2], words, made)
    for word in words:
        path = word.split(":")[0]
        if path.startswith(_REPOSITORY) and not (ROOT / path).exists() and path not in made:
            yield f"{path} does not exist"


def _of_program(program: str, words: list[str], made: set[str]) -> Iterator[str]:
    check = _CHECKS.get(program)
    if check:
        yield from check(words, made)
    elif program not in _FOREIGN:
        yield f"the checks do not know the program {program}"


def _kubectl(words: list[str], made: set[str]) -> Iterator[str]:
    if words[:1] == ["tokenbucket"]:
        yield from _parse_errors(plugin.parser(), words[1:])
        return
    found, arguments = kubectl_problems(words)
    yield from found
    yield from _files(arguments, made)
    if arguments.inner[:1] == ["tokenbucket"]:
        yield from _tokenbucket(arguments.inner[1:], made)


def _helm(words: list[str], made: set[str]) -> Iterator[str]:
    found, arguments = helm_problems(words)
    yield from found
    yield from _files(arguments, made)


def _files(arguments: Arguments, made: set[str]) -> Iterator[str]:
    for name in arguments.values("-f", "--filename", "--values"):
        if name != "-" and "://" not in name and name not in made and not (ROOT / name).exists():
            yield f"the page does not make the file {name}"


def _tokenbucket(words: list[str], made: set[str]) -> Iterator[str]:
    yield from _parse_errors(cli.parser(), words)
    if words[:1] == ["validate"]:
        yield from (f"the page does not make the file {name}" for name in words[1:] if name not in made)


def _parse_errors(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(words)
    except SystemExit as end:
        if end.code:
            yield said.getvalue().strip().splitlines()[-1]


def _make(words: list[str], _: set[str]) -> Iterator[str]:
    for word in words:
        name, equals, _value = word.partition("=")
        if equals and f"$({name})" not in _MAKEFILE and name != "REQUIRE":
            yield f"make: nothing reads {name}"
        if not equals and word not in _TARGETS:
            yield f"make: no target {word}"


def _python(words: list[str], _: set[str]) -> Iterator[str]:
    if words[:2] not in (["-m", "pytest"], ["-m", "venv"]):
        yield f"the checks do not know python {' '.join(words[:2])}"


_CHECKS: dict[str, Callable[[list[str], set[str]], Iterator[str]]] = {
    "helm": _helm,
    "kubectl": _kubectl,
    "make": _make,
    "python": _python,
    "python3": _python,
    "tokenbucket": _tokenbucket,
}
