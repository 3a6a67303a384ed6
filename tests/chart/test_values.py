"""Values are known, validated and described."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack import chart_readme

from tests.chart.chart import EVERYTHING, FOLDER, Chart, ChartError

HERE = Path(__file__).parent
VALUES = (FOLDER / "values.yaml").read_text()
SCHEMA = json.loads((FOLDER / "values.schema.json").read_text())


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every object of the schema by its path."""
    schema = resolved(schema)
    if schema.get("type") == "object":
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{path}.{name}")
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")
    for option in schema.get("oneOf", []):
        yield from objects(option, path)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_the_schema_rejects_unknown_keys_in_every_object() -> None:
    """Except objects with keys of the user, and those that Kubernetes validates."""
    open_to_all = {path for path, each in objects(SCHEMA) if each.get("additionalProperties") is not False}
    texts = {path for path, each in objects(SCHEMA) if each.get("additionalProperties") == {"type": "string"}}
    roles = (".agent", ".controller")
    affinity = {
        f"{role}.affinity.{kind}"
        for role in roles
        for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")
    }
    further = {f"{role}.podSecurityContext" for role in roles}
    items = {
        f"{role}.{name}[]" for role in roles for name in ("extraEnv", "extraVolumes", "extraVolumeMounts")
    }
    items |= {".podMonitor.relabelings[]", ".podMonitor.metricRelabelings[]"}
    items.add(".controller.topologySpreadConstraints[]")
    assert open_to_all - texts == {".global", ".podMonitor.tlsConfig", *affinity, *further, *items}


def test_the_schema_has_exactly_the_values_of_the_chart() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        assert set(schema["properties"]) == set(values), path
        for name, value in values.items():
            inner = f"{path}.{name}".lstrip(".")
            if isinstance(value, dict) and value and inner not in explained:
                compare(value, resolved(schema["properties"][name]), inner)

    explained = {row.key for row in chart_readme.rows(VALUES)}
    compare(yaml.safe_load(VALUES), SCHEMA, "")


@pytest.mark.parametrize(
    "values",
    [
        {"unknown": 1},
        {"agent": {"slot": 1}},
        {"agent": {"canary": {"image": {"tags": "x"}}}},
        {"agent": {"resources": {"limit": {}}}},
        {"agent": {"tolerations": [{"op": "Exists"}]}},
        {"controller": {"networkPolicy": {"port": 1}}},
        {"controller": {"serviceAccount": {"title": "x"}}},
        {"image": {"repository": ""}},
        {"image": {"digest": "sha256:short"}},
        {"image": {"pullPolicy": "always"}},
        {"imagePullSecrets": ["registry"]},
        {"enforcement": "On"},
        {"enforcement": True},
        {"log": {"format": "xml"}},
        {"agent": {"slots": 1}},
        {"agent": {"slots": 65537}},
        {"agent": {"slots": "many"}},
        {"agent": {"peers": 1023}},
        {"agent": {"peers": 2**22 + 1}},
        {"agent": {"probePort": 65536}},
        {"agent": {"cniResultsPath": "relative"}},
        {"agent": {"startJitterSeconds": -1}},
        {"agent": {"updateStrategy": {"type": "Recreate"}}},
        {"agent": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "200%"}}}},
        {"agent": {"resources": {"limits": {"memory": "320MB"}}}},
        {"protectedNamespaces": ["Not A Name"]},
        {"cleanup": {"timeoutSeconds": 0}},
        {"agent": {"extraArgs": ["attach"]}},
        {"agent": {"extraEnv": [{"value": "1"}]}},
        {"agent": {"minReadySeconds": -1}},
        {"agent": {"affinity": {"nodes": {}}}},
        {"controller": {"topologySpreadConstraints": [{"maxSkew": 1}]}},
        {"k8sServicePort": "6443"},
        {"flowControl": {"concurrencyShares": 0}},
        {"agent": {"metrics": {"host": "localhost"}}},
        {"agent": {"metrics": {"port": 0}}},
        {"controller": {"networkPolicy": {"metricsFrom": [{"namespace": "monitoring"}]}}},
        {"podMonitor": {"interval": "often"}},
        {"prometheusRule": {"runbookUrl": "alerts.md"}},
        {"dashboard": {"labels": {"grafana_dashboard": 1}}},
    ],
    ids=json.dumps,
)
def test_an_invalid_value_is_rejected_with_its_path(chart: Chart, values: dict[str, Any]) -> None:
    """Reject it before anything reaches the cluster."""
    with pytest.raises(ChartError, match="values don't meet the specifications of the schema"):
        chart.render(values)


def test_values_of_the_previous_release_still_render(chart: Chart, tmp_path: Path) -> None:
    """Support 'helm upgrade --reuse-values'. Missing values have the meaning of their default."""
    old = shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    shutil.copy(HERE / "previous_values.yaml", old / "values.yaml")
    agent = {"nodeRequirements": [], "reportSpreadSeconds": 2, "startJitterSeconds": 5}
    changed = {"agent": agent, "live": {"enabled": False}}

    def rendered(folder: Path, values: Mapping[str, Any]) -> list[Any]:
        return list(yaml.safe_load_all(chart.run("template", "tokenbucket", folder, values=values)))

    assert rendered(old, {}) == rendered(FOLDER, changed)
    rendered(old, EVERYTHING)


def test_a_bare_off_is_off(chart: Chart) -> None:
    """Accept false, as YAML reads it."""
    assert chart.render({"enforcement": False}).of("ConfigMap")[0]["data"]["enforcement"] == "Off"


def test_a_parent_chart_may_have_global_values(chart: Chart) -> None:
    """Accept them, because helm passes them to every part."""
    chart.render({"global": {"imageRegistry": "x"}})


def test_the_readme_lists_every_value() -> None:
    """Compare the table that 'make generate' writes."""
    current = (FOLDER / "README.md").read_text()
    assert chart_readme.readme(current, VALUES) == current


def test_a_value_without_a_description_is_an_error() -> None:
    """Name the line."""
    with pytest.raises(SystemExit, match=r"values.yaml:4: a\.c: no comment"):
        chart_readme.rows("a:\n  # -- Explained.\n  b: 1\n  c: 2\n")
