"""Parse policies and pods from YAML or JSON text that is not trusted.

Size and depth are limited, and aliases are rejected before values are built, because a few hundred bytes of
aliases can expand to gigabytes. Tags are rejected except that of text, because PyYAML can raise any exception
for a value that does not match its tag. Duplicate keys are errors. Timestamps stay text, as in the API.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tokenbucket.core.api.field_reader import subject_of
from tokenbucket.core.api.parse import parse_pod, parse_policy
from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Policy
from tokenbucket.errors import SpecError

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
_LONGEST_NUMBER = 64
_TEXT = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Manifests:
    """The valid documents, and one error for each invalid document."""

    policies: tuple[Policy, ...] = ()
    pods: tuple[Pod, ...] = ()
    errors: tuple[str, ...] = ()
    invalid: frozenset[str] | None = frozenset()
    """The invalid documents as NAMESPACE/NAME; ``None`` if the name of one is unknown."""


def parse_text(text: bytes, source: str, *, annotations: bool = False) -> Manifests:
    """Parse the text of a file. Never raises. Each error starts with ``source``.

    ``annotations`` is whether annotations of pods declare limits.
    """
    try:
        found = _documents(text)
    except _DocumentError as error:
        return Manifests(errors=(f"{source}: {error}",), invalid=None)
    policies, pods, errors = [], [], []
    named, is_named = set[str](), True
    for document in _flattened(found):
        try:
            kind = _kind(document)
            if kind == "TokenBucketPolicy":
                policies.append(parse_policy(document))
            elif kind == "Pod":
                pods.append(parse_pod(document, annotations=annotations))
            else:
                errors.append(f"{source}: kind {kind!r} is not supported; use TokenBucketPolicy or Pod")
                named.add(_name(document))
        except SpecError as error:
            errors.append(f"{source}: {error}")
            named.add(_name(document))
            is_named &= not any(problem.field.startswith("metadata") for problem in error.problems)
    invalid = frozenset(named) if is_named else None
    return Manifests(tuple(policies), tuple(pods), tuple(errors), invalid)


def _flattened(found: list[object]) -> Iterator[object]:
    """Yield the documents, and the items of lists, as ``kubectl get -o yaml`` writes them."""
    for document in found:
        if isinstance(document, dict) and _kind(document) in ("List", "PodList", "TokenBucketPolicyList"):
            items = document.get("items")
            yield from items if isinstance(items, list) else [items]
        else:
            yield document


def _kind(document: object) -> object:
    return document.get("kind") if isinstance(document, dict) else None


def _name(document: object) -> str:
    return subject_of("", document).lstrip()


class _DocumentError(ValueError):
    """The text contains no readable documents."""


class _Loader(yaml.CSafeLoader):
    """The safe loader without timestamps, which rejects duplicate keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise _DocumentError(
                    f"line {key.start_mark.line + 1}: key {key.value!r} is duplicate; remove one"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Reject long numbers: Python does not write more than 4300 digits, not even in an error."""
        if len(node.value) > _LONGEST_NUMBER:
            line = node.start_mark.line + 1
            raise _DocumentError(f"line {line}: has a number of more than {_LONGEST_NUMBER} digits")
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _documents(text: bytes) -> list[object]:
    """Return the documents of a file; empty ones are left out. Raises _DocumentError."""
    if len(text) > MAX_BYTES:
        raise _DocumentError(f"is larger than {MAX_BYTES} bytes; split the file")
    try:
        _check_shape(text)
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except _DocumentError:
        raise
    except yaml.YAMLError as error:
        raise _DocumentError(f"is not YAML: {_first_line(error)}") from error
    except (UnicodeError, ValueError, TypeError) as error:
        raise _DocumentError(f"cannot be read: {error}") from error


def _check_shape(text: bytes) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _DocumentError(f"{_line(event)}: aliases are not supported; repeat the value")
        tag = getattr(event, "tag", None)
        if tag not in {None, _TEXT}:
            raise _DocumentError(f"{_line(event)}: tag {tag!r} is not supported; remove the tag")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _DocumentError(f"{_line(event)}: has more than {MAX_DEPTH} nested levels")


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "somewhere"


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)
