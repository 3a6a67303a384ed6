"""The width of ``kubectl get tbp``, from the columns of the CRD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).parents[3] / "crds" / "tokenbucket.yaml"
SPACES = 3
"""Between two columns of kubectl's tables."""
LONGEST = {
    "NAME": "a-name-of-24-characters.",
    "Ingress": "100Mbit/s",
    "Egress": "1.25Gbit/s",
    "Pods": "1280/1280",
    "Ready": "Unknown",
    "Reason": "AgentUnavailable",
    "Age": "365d",
}


def columns(*, wide: bool = False) -> list[dict[str, Any]]:
    policies = next(yaml.safe_load_all(CRDS.read_text()))
    every = policies["spec"]["versions"][0]["additionalPrinterColumns"]
    return [column for column in every if wide or not column.get("priority")]


def test_the_table_of_policies_fits_in_100_columns() -> None:
    names = ["NAME", *(column["name"] for column in columns())]
    assert names == list(LONGEST)
    widths = [max(len(name), len(LONGEST[name])) for name in names]
    assert sum(widths) + SPACES * (len(names) - 1) <= 100


def test_the_wide_table_shows_the_fields_that_decide_precedence() -> None:
    assert {"Selector", "Priority", "Mode"} <= {column["name"] for column in columns(wide=True)}


def test_the_wide_table_shows_a_status_of_an_earlier_generation() -> None:
    """Show both numbers side by side, because no controller may run that corrects Ready."""
    paths = [column["jsonPath"] for column in columns(wide=True)]
    generation = paths.index(".metadata.generation")
    assert paths[generation + 1] == ".status.observedGeneration"
