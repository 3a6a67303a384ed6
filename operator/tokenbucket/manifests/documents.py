"""Parse YAML from untrusted files.

Size and depth are limited, and aliases are rejected before values are built, because a few hundred bytes of
aliases can expand to gigabytes. Duplicate keys are errors. Timestamps stay text, as in the API.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32


class DocumentError(ValueError):
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
                raise DocumentError(
                    f"line {key.start_mark.line + 1}: key {key.value!r} is duplicate; remove one"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def documents(text: bytes) -> list[object]:
    """Return the documents of a file; empty ones are left out. Raises DocumentError."""
    if len(text) > MAX_BYTES:
        raise DocumentError(f"is larger than {MAX_BYTES} bytes; split the file")
    try:
        _check_shape(text)
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        raise DocumentError(f"is not YAML: {_first_line(error)}") from error
    except (UnicodeError, ValueError, TypeError) as error:
        raise DocumentError(f"cannot be read: {error}") from error


def _check_shape(text: bytes) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"{_line(event)}: aliases are not supported; repeat the value")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise DocumentError(f"{_line(event)}: has more than {MAX_DEPTH} nested levels")


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "somewhere"


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)
