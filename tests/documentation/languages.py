"""Checks of one block, by its language. A language without a check is a problem of the block."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import yaml

from tests.documentation.blocks import Block
from tests.documentation.crds import KINDS, kind_of, manifest_problems
from tests.documentation.helm import SCHEMA, values_problems
from tests.documentation.programs import command_problems
from tests.documentation.schema import problems
from tests.documentation.shell import commands
from tokenbucket.agent.metrics import OF_THE_AGENT, OF_THE_PODS
from tokenbucket.agent.policy_metrics import OF_THE_POLICIES
from tokenbucket.controller.metrics import OF_THE_CONTROLLER
from tokenbucket.core.api.live import parse_request
from tokenbucket.errors import SpecError

Files = set[str]
_METRICS = {each.name for each in (*OF_THE_AGENT, *OF_THE_PODS, *OF_THE_POLICIES, *OF_THE_CONTROLLER)}
_TITLE = re.compile(r"^# ([\w.-]+\.yaml)$")
_PROGRAMS = {"kubectl", "helm", "make", "tokenbucket"}
_SPEC = KINDS["TokenBucketPolicy"].schema["properties"]["spec"]
_COLUMNS = {name for kind in KINDS.values() for name in kind.columns}


def block_problems(block: Block, made: Files) -> Iterator[str]:
    """Yield the problems of a block. ``made`` has the files that the page has made so far."""
    check = _LANGUAGES.get(block.language)
    if check:
        yield from check(block.text, made)
    else:
        yield f"language {block.language!r} has no check; use one of {', '.join(_LANGUAGES)}"


def span_problems(span: Block) -> Iterator[str]:
    """Yield the problems of code in prose, if it is a command with arguments. It may leave out the others."""
    words = span.text.split()
    if len(words) > 2 and words[0] in _PROGRAMS:
        found = _shell(span.text, {"FILE"})
        yield from (problem for problem in found if "arguments are required" not in problem)


def _shell(text: str, made: Files) -> Iterator[str]:
    try:
        found = list(commands(text))
    except ValueError as error:
        yield str(error)
        return
    for command in found:
        if command.stdin and any(name.endswith(".yaml") for name in command.writes):
            yield from _yaml(command.stdin, made)
        yield from command_problems(command, made)


def _session(text: str, made: Files) -> Iterator[str]:
    """Check commands of a terminal, and the head of each table. Their files need not exist here."""
    own_table = True
    for line in text.splitlines():
        prompt, _, command = line.partition("$ ")
        if not prompt and command:
            there = {word for word in command.split() if word.endswith((".yaml", ".json"))}
            own_table = any(map(kind_of, command.split()))
            yield from _shell(command, made | there)
        elif own_table and line.startswith("NAME "):
            unknown = (name for name in line.split() if name not in _COLUMNS)
            yield from (f"kubectl prints no column {name}" for name in unknown)


def _yaml(text: str, made: Files) -> Iterator[str]:
    title = _TITLE.match(text.partition("\n")[0])
    made.update(title.groups() if title else ())
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        yield f"is no YAML: {error}"
        return
    if title and title[1] == "kustomization.yaml":
        return  # tests/chart builds it
    for document in documents:
        if "apiVersion" in document or "kind" in document:
            yield from manifest_problems(document)
        elif document.keys() <= _SPEC["properties"].keys():
            yield from problems(document, _SPEC, _SPEC, partial=True)
        elif document.keys() <= SCHEMA["properties"].keys():
            yield from values_problems(document)
        else:
            yield f"{', '.join(document)}: neither a manifest, nor part of a policy's spec, nor Helm values"


def _json(text: str, _: Files) -> Iterator[str]:
    document = json.loads(text)
    if "uids" in document:
        try:
            parse_request(text.encode())
        except SpecError as error:
            yield str(error)
    elif "apiVersion" in document:
        yield from manifest_problems(document)


def _promql(text: str, _: Files) -> Iterator[str]:
    for name in re.findall(r"\btokenbucket_\w+", text):
        if name not in _METRICS:
            yield f"no metric {name}"


_LANGUAGES: dict[str, Callable[[str, Files], Iterator[str]]] = {
    "sh": _shell,
    "console": _session,
    "text": _session,
    "yaml": _yaml,
    "json": _json,
    "promql": _promql,
}
