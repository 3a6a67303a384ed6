"""Documents checked by a JSON or OpenAPI schema: by the keywords that Helm and the API server use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
}


def problems(value: object, schema: Schema, root: Schema, *, partial: bool = False) -> Iterator[str]:
    """Yield the differences. With ``partial``, required fields may be missing."""
    yield from (f"{path}: {problem}" for path, problem in _problems(value, schema, root, "", partial=partial))


def _problems(
    value: object, schema: Schema, root: Schema, path: str, *, partial: bool
) -> Iterator[tuple[str, str]]:
    schema = _resolved(schema, root)
    if not _has_type(value, schema):
        yield path, f"{value!r} is no {schema.get('type', 'integer or string')}"
    elif isinstance(value, dict):
        yield from _of_object(value, schema, root, path, partial=partial)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), root, f"{path}[{index}]", partial=partial)
    elif value not in schema.get("enum", [value]):
        yield path, f"{value!r} is none of {schema['enum']}"
    elif not re.search(schema.get("pattern", ""), str(value)):
        yield path, f"{value!r} does not match {schema['pattern']}"


def _resolved(schema: Schema, root: Schema) -> Schema:
    name = schema.get("$ref", "").removeprefix("#/definitions/")
    return root["definitions"][name] if name else schema


def _has_type(value: object, schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    expected = schema.get("type", [])
    names = [expected] if isinstance(expected, str) else expected
    return not names or any(
        isinstance(value, _TYPES[name]) and isinstance(value, bool) is (name == "boolean") for name in names
    )


def _of_object(
    value: dict[str, object], schema: Schema, root: Schema, path: str, *, partial: bool
) -> Iterator[tuple[str, str]]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    closed = others is False or (others is None and bool(known))  # the API server prunes unknown fields
    for name, item in value.items():
        if name in known:
            yield from _problems(item, known[name], root, f"{path}.{name}", partial=partial)
        elif closed:
            yield f"{path}.{name}", "is unknown"
        elif isinstance(others, dict):
            yield from _problems(item, others, root, f"{path}.{name}", partial=partial)
    for name in () if partial else schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}", "is missing"
