"""Limits that annotations declare, with a real API server and agent: by ``make e2e-docs``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.e2e.release import Release, until

INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
MBIT = 10**6


@pytest.fixture
def here(release: Release) -> Iterator[Kubectl]:
    """A namespace on a cluster whose agents read annotations."""
    with (
        release.installed_with(agent__bandwidthAnnotations="true"),
        release.admin.fresh_namespace("annotated") as found,
    ):
        yield found


def test_annotations_are_followed_while_the_pod_runs(
    here: Kubectl, release: Release, nodes: list[str]
) -> None:
    """Set, change, spoil and remove them. An invalid value causes an Event about the pod."""
    document = pod("web", nodes[0])
    document["metadata"]["annotations"] = {INGRESS: "10M", EGRESS: "10M"}
    here.apply(document)
    agent = release.agent(nodes[0])

    def rates() -> dict[str, int]:
        shown: Any = json.loads(release.kubectl.exec(agent, "tokenbucket", "status", "-o", "json"))
        mine = (each for each in shown["limits"] if each.get("namespace") == "annotated")
        return {each["direction"]: each["bitsPerSecond"] for each in mine}

    def follow(value: str, expected: dict[str, int]) -> None:
        here.run("annotate", "--overwrite", "pod", "web", f"{INGRESS}{value}")
        until(lambda: rates() == expected, lambda: f"{rates()} after {value}")

    until(lambda: rates() == {"ingress": 10 * MBIT, "egress": 10 * MBIT}, timeout_s=180)
    follow("=20M", {"ingress": 20 * MBIT, "egress": 10 * MBIT})
    follow("=20Mbit", {"egress": 10 * MBIT})
    events = "--field-selector=involvedObject.kind=Pod,involvedObject.name=web,reason=InvalidAnnotation"
    [event] = until(lambda: here.items("events", events))
    assert INGRESS in event["message"]
    follow("=5M", {"ingress": 5 * MBIT, "egress": 10 * MBIT})
    follow("-", {"egress": 10 * MBIT})
