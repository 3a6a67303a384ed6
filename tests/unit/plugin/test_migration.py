"""Policies that are equivalent to the annotations of pods and workloads."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.core.api.test_annotations import (
    SAMPLE_OF_CALICO,
    SAMPLE_OF_CILIUM,
    SAMPLE_OF_KUBERNETES,
    SAMPLE_OF_TERWAY,
)
from tokenbucket.core.api.parse import parse_pod, parse_policy
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.manifests import parse_text
from tokenbucket.plugin.annotated import Cluster
from tokenbucket.plugin.existing_policies import ExistingPolicies
from tokenbucket.plugin.migration import Migration, migrate

TEN = {"kubernetes.io/ingress-bandwidth": "10M"}
TWENTY = {"kubernetes.io/ingress-bandwidth": "20M"}


def workload(name: str, annotations: dict[str, str], kind: str = "Deployment", **labels: str) -> Any:
    """Return a workload whose selector is its labels."""
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": {}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": {"template": template}}}
    return {"kind": kind, "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": spec}


def pod(name: str, annotations: dict[str, str], owner: str = "", kind: str = "x", **labels: str) -> Any:
    """Return a pod, which may have an owner."""
    owners = [{"kind": kind, "uid": owner, "controller": True}] if owner else []
    about = {"name": name, "namespace": "shop", "labels": labels, "annotations": annotations}
    return {"kind": "Pod", "metadata": {**about, "ownerReferences": owners}, "status": {}}


def replica_set(deployment: str, uid: str) -> Any:
    owners = [{"kind": "Deployment", "uid": deployment, "controller": True}]
    about = {"name": uid, "namespace": "shop", "uid": uid, "ownerReferences": owners}
    return {"kind": "ReplicaSet", "metadata": about, "spec": {}}


def migrated(
    pods: list[Any],
    workloads: list[Any] = (),
    wanted: frozenset[str] | None = None,
    existing: list[Any] = (),
) -> Migration:
    """Return the migration, whose policies are valid."""
    found = migrate(Cluster.of(pods, workloads), wanted, ExistingPolicies.of(existing, "operators"))
    for policy in found.policies:
        parse_policy(policy)
    return found


def selectors(found: Migration) -> dict[str, Any]:
    return {each["metadata"]["name"]: each["spec"]["podSelector"] for each in found.policies}


@pytest.mark.parametrize(
    "sample", [SAMPLE_OF_KUBERNETES, SAMPLE_OF_CILIUM, SAMPLE_OF_CALICO, SAMPLE_OF_TERWAY]
)
def test_a_policy_gives_the_pods_of_a_sample_the_limits_of_their_annotations(sample: str) -> None:
    """Validate the manifest by the parser of this project."""
    document = yaml.safe_load(sample)
    document["metadata"] |= {"labels": {"app": "web"}, "namespace": "shop"}
    found = migrated([document])
    parsed = parse_text(yaml.safe_dump_all(found.policies).encode(), "out")
    assert parsed.errors == ()
    annotated = parse_pod(document, annotations=True)
    winners = Winners(parsed.policies).of(annotated)
    assert annotated.annotated
    assert {
        each: policy.limits[each] for each, policy in winners.items()
    } == annotated.annotated.policy.limits
    assert {policy.name for policy in parsed.policies} == {document["metadata"]["name"]}


def test_a_policy_of_a_workload_has_its_selector() -> None:
    """Ignore labels that controllers add to single pods. The pods need not exist."""
    hashed = {"app": "web", "pod-template-hash": "5d4f"}
    found = migrated(
        [pod("web-5d4f-0", TEN, "web-5d4f", **hashed), pod("batch-0", TEN, "batch", app="batch")],
        [
            workload("web", TEN),
            replica_set("web", "web-5d4f"),
            workload("batch", TEN, "CronJob", app="batch"),
            workload("idle", TWENTY, "StatefulSet"),
        ],
    )
    assert selectors(found) == {
        "ingress-10m": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["batch", "web"]}]},
        "idle": {"matchLabels": {"app": "idle"}},
    }


def test_pods_of_an_unknown_owner_are_selected_by_their_stable_labels() -> None:
    """The user may lack the right to list workloads, and others have workloads of their own."""
    pods = [
        pod(f"web-{each}", TEN, "unknown", app="web", **{"pod-template-hash": "5d4f"}) for each in range(2)
    ]
    found = migrated(pods)
    assert selectors(found) == {"web-0": {"matchLabels": {"app": "web"}}}


def test_equal_limits_with_different_labels_get_a_policy_each() -> None:
    """One selector could not select exactly their pods."""
    found = migrated([], [workload("a", TEN, app="a", tier="x"), workload("b", TEN, app="b", tier="y")])
    assert selectors(found) == {
        "a": {"matchLabels": {"app": "a", "tier": "x"}},
        "b": {"matchLabels": {"app": "b", "tier": "y"}},
    }


@pytest.mark.parametrize("others", [{}, TWENTY])
def test_a_pod_that_no_selector_distinguishes_gets_no_policy(others: dict[str, str]) -> None:
    """A policy would limit the other pods too. A note names them, also if they do not run."""
    found = migrated([pod("one", TEN, app="web"), pod("two", others, app="web")])
    assert found.policies == []
    assert any("labels also select two" in note and note.startswith("shop/one (Pod)") for note in found.notes)
    scaled = migrated(
        [], [workload("a", TEN, app="web"), workload("b", others, "DaemonSet", app="web", x="y")]
    )
    assert "a" not in selectors(scaled)
    assert any("also select b" in note for note in scaled.notes)


def test_a_pod_without_labels_gets_a_note() -> None:
    """An empty selector would select all pods."""
    found = migrated([pod("bare", TEN)])
    assert found.policies == []
    assert found.notes == ["shop/bare (Pod): has no label that selects it; add a label to its pods"]


def test_pods_that_differ_from_their_template_are_named() -> None:
    """The policy has the limits of the template."""
    pods = [pod("web-0", TEN, "web", app="web"), pod("web-1", TWENTY, "web", app="web")]
    found = migrated(pods, [workload("web", TEN)])
    assert selectors(found) == {"web": {"matchLabels": {"app": "web"}}}
    [note] = found.notes
    assert note.startswith("shop/web (Deployment): pods web-1 differ from the template")


def test_annotations_without_an_equivalent_are_named_with_the_reason() -> None:
    """Name them also if the pod has no other limit."""
    annotations = {
        "qos.projectcalico.org/ingressMaxConnections": "10",
        "qos.projectcalico.org/egressPeakrate": "1G",
        "bandwidth.cilium.io/priority": "guaranteed",
        "k8s.aliyun.com/qos-class": "best-effort",
        "kubernetes.io/ingress-bandwidth": "10Mbit",
    }
    found = migrated([], [workload("web", annotations)])
    assert found.policies == []
    for name in annotations:
        assert any(name in note for note in found.notes)
    assert sum("it has no equivalent" in note for note in found.notes) == 4


def test_pods_in_the_network_of_the_node_get_no_policy() -> None:
    """Ignore them when choosing the selectors of other policies."""
    of_node = workload("agent", TEN)
    of_node["spec"]["template"]["spec"]["hostNetwork"] = True
    found = migrated([], [of_node])
    assert found.policies == []
    assert "network of the node" in found.notes[0]


def test_names_are_unique_and_only_selected_pods_are_migrated() -> None:
    """Use a Deployment and a StatefulSet of one name, and a label selector."""
    both = [workload("web", TEN, app="a", x="1"), workload("web", TWENTY, "StatefulSet", app="b", y="1")]
    both[1]["metadata"]["uid"] = "other"
    assert selectors(migrated([], both)).keys() == {"web", "web-1"}
    pods = [pod("a-0", TEN, "web", app="a", x="1"), pod("b-0", TWENTY, "other", app="b", y="1")]
    only = migrated(pods, both, frozenset({"shop/b-0"}))
    assert selectors(only) == {"web": {"matchLabels": {"app": "b", "y": "1"}}}


def existing(name: str, labels: dict[str, str], **spec: Any) -> Any:
    """Return a policy of the cluster, by default one of the pods of db."""
    about = {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}
    rate = {"rate": {"bits": "10M"}}
    return {
        "metadata": about,
        "spec": {"podSelector": {"matchLabels": labels} if labels else {}, "ingress": rate, **spec},
    }


DB = {"app": "db"}


@pytest.mark.parametrize(
    "other",
    [
        existing("db", {"app": "web"}),
        existing("db", DB, ingress={"rate": {"bits": "1M"}}),
        existing("db", DB, mode="Observe"),
        existing("db", DB, priority=1),
        existing("db", DB, egress={"rate": {"bits": "1M"}}),
        existing("db", DB, ingress={"rate": {"bits": "invalid"}}),
    ],
)
def test_no_existing_policy_is_replaced(other: Any) -> None:
    found = migrated([], [workload("db", TEN)], existing=[other])
    assert [each["metadata"]["name"] for each in found.policies] == ["db-1"]


@pytest.mark.parametrize("name", ["db", "db-1", "renamed"])
@pytest.mark.parametrize("defaults", [{}, {"mode": "Enforce", "priority": 0}])
def test_a_second_migration_has_the_names_of_the_first(name: str, defaults: dict[str, Any]) -> None:
    """Recognize a policy that declares the same, with the defaults of the schema."""
    others = [existing(name, DB, **defaults), existing("db", {"app": "web"})][: 1 if name == "db" else 2]
    found = migrated([], [workload("db", TEN)], existing=others)
    assert [each["metadata"]["name"] for each in found.policies] == [name]
    assert found.notes == []


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        ({}, "because policy all ranks higher: it has a creation time, and the other policy has none"),
        ({"priority": 3}, "the new one has no effect there, because policy all ranks higher: priority 3 is "),
        ({"mode": "Observe"}, "the new one overrides policy all there, because policy db ranks higher: a "),
        ({"mode": "Off"}, ""),
        ({"ingress": None, "egress": {"rate": {"bits": "1M"}}}, ""),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, ""),
    ],
)
def test_a_note_names_the_policy_that_already_limits_the_pods(spec: dict[str, Any], note: str) -> None:
    found = migrated([], [workload("db", TEN)], existing=[existing("all", {}, **spec)])
    assert [note in each for each in found.notes] == ([True] if note else [])
    assert all(each.startswith("policy shop/db: policy all also limits ingress of") for each in found.notes)


@pytest.mark.parametrize(("namespace", "notes"), [("kube-system", 1), ("operators", 1), ("shop", 0)])
def test_a_note_names_the_label_that_a_protected_namespace_needs(namespace: str, notes: int) -> None:
    protected = workload("db", TEN)
    protected["metadata"]["namespace"] = namespace
    found = migrated([], [protected])
    assert ["tokenbucket.dev/allow-protected=true" in each for each in found.notes] == [True] * notes
