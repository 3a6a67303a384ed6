"""Fields, names and columns of the kinds of tokenbucket.dev, from the CRDs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.documentation.blocks import ROOT
from tests.documentation.schema import Schema, problems
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.errors import SpecError

GROUP = "tokenbucket.dev"
CONDITIONS = {"Accepted", "Programmed", "Degraded", "Ready", "Stalled", "Reconciling"}
_BRACKETS = re.compile(r"\[[^\]]*\]")
_CONDITION = re.compile(r'@\.type=="(\w+)"')
_FIELDS = re.compile(r"(?<![\w@])((?:\.\w+)+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    name: str
    resources: frozenset[str]
    schema: Schema
    columns: tuple[str, ...]
    """As kubectl prints them, with --output wide."""

    def field_problems(self, jsonpath: str) -> Iterator[str]:
        """Yield the fields and conditions of a JSONPath template that objects do not have."""
        for condition in _CONDITION.findall(jsonpath):
            if condition not in CONDITIONS:
                yield f"{condition} is no condition"
        for path in _FIELDS.findall(_BRACKETS.sub("", jsonpath)):
            if not self._has(path.removeprefix(".items").split(".")[1:]):
                yield f"{path} is no field of {self.name}"

    def _has(self, path: list[str]) -> bool:
        node: Mapping[str, Any] = self.schema
        for name in path if path[:1] != ["metadata"] else ():
            node = node.get("items", node)
            known = node.get("properties", {}).get(name) or node.get("additionalProperties")
            if not isinstance(known, Mapping):
                return False
            node = known
        return True


def _kinds() -> Iterator[Kind]:
    for crd in yaml.safe_load_all((ROOT / "crds/tokenbucket.yaml").read_text()):
        names, [version] = crd["spec"]["names"], crd["spec"]["versions"]
        resources = {names["plural"], names["singular"], *names["shortNames"], crd["metadata"]["name"]}
        yield Kind(
            names["kind"],
            frozenset(resources),
            version["schema"]["openAPIV3Schema"],
            ("NAME", *(column["name"].upper() for column in version["additionalPrinterColumns"])),
        )


KINDS = {kind.name: kind for kind in _kinds()}


def kind_of(resource: str) -> Kind | None:
    """Return the kind that kubectl means by this name, if it is one of tokenbucket.dev."""
    return next((kind for kind in KINDS.values() if resource in kind.resources), None)


def manifest_problems(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why an API server or the agent would refuse an object."""
    missing = [name for name in ("apiVersion", "kind", "metadata") if not document.get(name)]
    if missing or "name" not in document["metadata"]:
        yield f"has no {' and no '.join(missing) or 'metadata.name'}"
        return
    group, _, version = document["apiVersion"].rpartition("/")
    if group != GROUP:
        return
    kind = KINDS.get(document["kind"])
    if kind is None or version != "v1alpha1":
        yield f"{document['apiVersion']} {document['kind']} is no kind of {GROUP}"
        return
    yield from problems(document, kind.schema, kind.schema)
    if kind.name == "TokenBucketPolicy":
        namespaced = {**document, "metadata": {"namespace": "default", **document["metadata"]}}
        try:
            parse_policy(namespaced)
        except SpecError as error:
            yield str(error)
