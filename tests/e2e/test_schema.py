"""The schema on a real API server: rejections, defaults, and columns."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from tests.e2e.cases_invalid_policies import (
    INVALID,
    NAMESPACE,
    VALID,
    Case,
    Document,
    policy,
)
from tests.e2e.release import CONTROLLER, until

pytestmark = pytest.mark.kubernetes
CRDS = Path(__file__).parents[2] / "crds" / "tokenbucket.yaml"
KINDS = ("tokenbucketpolicies.tokenbucket.dev", "tokenbucketnodes.tokenbucket.dev")
POLICY_COLUMNS = ["NAME", "INGRESS", "EGRESS", "PODS", "READY", "REASON", "AGE"]
NODE_COLUMNS = ["NAME", "READY", "ENFORCEMENT", "LIMITS", "FQ", "KERNEL", "VERSION", "AGE", "PROBLEM"]


@pytest.fixture(scope="module")
def shop(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Create a namespace. Remove the kinds afterwards that did not exist before."""
    before = kubectl.run("get", "crd", "--output=name", "--ignore-not-found", *KINDS)
    kubectl.run("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    try:
        kubectl.wait("condition=Established", *(f"crd/{kind}" for kind in KINDS))
        with _without_controller(kubectl), kubectl.fresh_namespace(NAMESPACE) as here:
            yield here
    finally:
        if not before:
            kubectl.run("delete", f"--filename={CRDS}", timeout_s=120)


@contextlib.contextmanager
def _without_controller(kubectl: Kubectl) -> Iterator[None]:
    """Stop the controller of a release, if one exists, because it writes the status of the policies."""
    found = kubectl.items("deployments", "--all-namespaces", f"--selector={CONTROLLER}")
    for each in found:
        _scale(kubectl, each["metadata"], 0)
    try:
        yield
    finally:
        for each in found:
            _scale(kubectl, each["metadata"], each["spec"]["replicas"])


def _scale(kubectl: Kubectl, deployment: dict[str, Any], replicas: int) -> None:
    name, namespace = f"deployment/{deployment['name']}", f"--namespace={deployment['namespace']}"
    kubectl.run("scale", name, namespace, f"--replicas={replicas}")
    if replicas:
        kubectl.run("rollout", "status", name, namespace, "--timeout=120s", timeout_s=130)
    else:
        pods = ("pods", namespace, f"--selector={CONTROLLER}")
        kubectl.run("wait", "--for=delete", *pods, "--timeout=120s", timeout_s=130)


@pytest.fixture
def applied(shop: Kubectl) -> Iterator[Kubectl]:
    """Provide the namespace, and delete its policies after the test."""
    yield shop
    shop.run("delete", "tbp", "--all")


def refusal(shop: Kubectl, document: Document) -> str:
    """Return the message with which the API server rejects a policy."""
    with pytest.raises(ClusterError) as caught:
        dry_run(shop, document)
    return caught.value.output


def dry_run(shop: Kubectl, document: Document) -> Any:
    """Return the policy as the API server would store it. Use no apply, which removes null."""
    words = ("--dry-run=server", "--output=json", "--filename=-")
    return json.loads(shop.run("create", *words, stdin=json.dumps(document)))


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_an_invalid_policy_is_rejected_with_field_and_fix(shop: Kubectl, case: Case) -> None:
    """Answer at once, without a webhook."""
    message = refusal(shop, case.document)
    assert [word for word in (case.field, *case.words) if word not in message] == [], message
    assert "evaluating rule" not in message


@pytest.mark.parametrize("document", VALID, ids=lambda document: document["metadata"]["name"])
def test_a_valid_policy_is_accepted(shop: Kubectl, document: Document) -> None:
    """Drop and change nothing."""
    stored = dry_run(shop, document)["spec"]
    for name, value in document["spec"].items():
        if value is not None:
            assert contains(stored[name], value), stored


def contains(stored: Any, given: Any) -> bool:
    """Return whether everything that was given exists. The API server only adds."""
    if isinstance(given, dict):
        return all(key in stored and contains(stored[key], value) for key, value in given.items())
    return bool(stored == given)


def test_all_problems_are_reported_at_once(shop: Kubectl) -> None:
    """Spare users one attempt per problem."""
    limit = {"rate": {"bits": "1Mi"}, "maxDelay": "1ms", "burst": {"packets": 0}, "dscp": 3}
    message = refusal(shop, policy("many", ingress=limit, priority=1001))
    for field in ("rate.bits", "maxDelay", "burst.packets", "dscp"):
        assert f"spec.ingress.{field}: " in message
    assert "spec.priority: " in message


def test_static_defaults_are_stored_and_computed_ones_are_not(shop: Kubectl) -> None:
    """Keep the meaning of a policy between versions. The status shows values that depend on the rate."""
    peers = {"rate": {"bits": "1M"}}
    assert dry_run(shop, policy("defaults", ingress={"perPeer": peers}))["spec"] == {
        "podSelector": {},
        "priority": 0,
        "mode": "Enforce",
        "ingress": {
            "exceedAction": "Delay",
            "perPeer": {**peers, "ipv4PrefixLength": 32, "ipv6PrefixLength": 64},
        },
    }


def test_a_change_that_makes_a_policy_invalid_is_rejected(applied: Kubectl) -> None:
    """Validate updates like new policies."""
    applied.apply(policy("web"))
    message = refusal(applied, policy("web", ingress={"rate": {"bits": "100Mi"}}))
    assert "did you mean 100M?" in message


def test_an_invalid_server_side_apply_is_rejected(shop: Kubectl) -> None:
    """Apply as GitOps tools do."""
    document = json.dumps(policy("web", ingress={"rate": {"bits": "100Mbps"}}))
    with pytest.raises(ClusterError) as caught:
        shop.run("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=document)
    assert "did you mean 100M?" in caught.value.output


def fields_of(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the paths for ``kubectl explain``, each with its schema."""
    yield path, schema
    inner = schema.get("items", schema)
    for name, each in inner.get("properties", {}).items():
        yield from fields_of(each, f"{path}.{name}")


@pytest.mark.parametrize("number", [0, 1], ids=["policy", "node"])
def test_explain_describes_every_field(shop: Kubectl, number: int) -> None:
    """Explain the API without another document."""
    crd = list(yaml.safe_load_all(CRDS.read_text()))[number]["spec"]
    schema = crd["versions"][0]["schema"]["openAPIV3Schema"]
    for part in schema["properties"].keys() & {"spec", "status"}:
        root = f"{crd['names']['singular']}.{part}"
        recursive = shop.run("explain", "--recursive", root)
        for path, each in fields_of(schema["properties"][part], root):
            name = path.rpartition(".")[2]
            assert path == root or f"  {name}\t<" in recursive
            if "properties" in each.get("items", each):
                assert_described(shop.run("explain", path), path, each)


def assert_described(shown: str, path: str, schema: dict[str, Any]) -> None:
    """Assert that the field and its children have descriptions, wrapped as kubectl prints them."""
    assert "<no description>" not in shown
    text = " ".join(shown.split())
    inner = schema.get("items", schema)["properties"]
    for description in (schema["description"], *(each["description"] for each in inner.values())):
        assert " ".join(description.split()) in text, path


def columns(shown: str) -> list[list[str]]:
    """Return the lines of ``kubectl get``, split into cells."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in shown.splitlines()]


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    """Return one condition of generation 1."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "3 pods on 2 nodes",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


STATUS = {
    "observedGeneration": 1,
    "rates": {"ingress": "100Mbit/s", "egress": "1Gbit/s"},
    "effective": {"ingress": "100Mbit/s, burst 625kB, Delay 100ms", "egress": "1Gbit/s, burst 6.25MB, Drop"},
    "action": "Delay",
    "pods": {"matched": 3, "programmed": 2, "degraded": 1, "failed": 1, "summary": "2/3"},
    "nodes": {"matched": 2, "unavailable": 0},
    "conditions": [
        condition("Accepted", "True", "Accepted"),
        condition("Programmed", "False", "Pending"),
        condition("Degraded", "True", "NoFq"),
        condition("Ready", "False", "Pending"),
    ],
}


def write_status(shop: Kubectl, name: str, status: dict[str, Any], manager: str) -> None:
    """Apply the status subresource on the server, as the controller does."""
    document = {**policy(name), "status": status}
    del document["spec"]
    words = ("--server-side", "--subresource=status", f"--field-manager={manager}", "--filename=-")
    shop.run("apply", *words, stdin=json.dumps(document))


def test_a_status_is_stored_by_its_subresource_and_shown_in_the_columns(applied: Kubectl) -> None:
    """Store every field of the controller."""
    applied.apply(policy("web"))
    write_status(applied, "web", STATUS, "tokenbucket-controller")
    assert applied.get("tbp", "web")["status"] == STATUS
    head, line = columns(applied.run("get", "tbp"))
    assert head == POLICY_COLUMNS
    assert line[:-1] == ["web", "100Mbit/s", "1Gbit/s", "2/3", "False", "Pending"]
    wide = applied.run("get", "tbp", "--output=wide")
    for text in ("SELECTOR", "PRIORITY", "{}", *STATUS["effective"].values()):  # type: ignore[attr-defined]
        assert text in wide


def test_a_status_in_an_applied_policy_is_dropped(applied: Kubectl) -> None:
    """Let only the controller write the status, by the subresource."""
    applied.apply({**policy("web"), "status": STATUS})
    status = applied.get("tbp", "web")["status"]
    assert status.keys() == {"conditions"}
    assert [(each["type"], each["status"]) for each in status["conditions"]] == [("Ready", "Unknown")]


def test_conditions_merge_by_type(applied: Kubectl) -> None:
    """Keep the conditions of another writer."""
    applied.apply(policy("web"))
    write_status(applied, "web", {"conditions": [condition("Ready", "True", "Programmed")]}, "one")
    write_status(applied, "web", {"conditions": [condition("Seen", "True", "Seen")]}, "other")
    found = applied.get("tbp", "web")["status"]["conditions"]
    assert {each["type"] for each in found} == {"Ready", "Seen"}


def test_kubectl_wait_works_with_policies(applied: Kubectl) -> None:
    """Use the condition Ready, as GitOps tools do."""
    applied.apply(policy("web"))
    write_status(applied, "web", {"conditions": [condition("Ready", "True", "Programmed")]}, "one")
    applied.wait("condition=Ready", "tbp/web", timeout_s=60)


NODE_STATUS = {
    "conditions": [
        {
            "type": "AgentReady",
            "status": "False",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "NoPod",
            "message": "none",
        }
    ],
    "agent": {"version": "0.1.0", "pod": "tokenbucket-agent-abcde"},
    "kernel": "6.12.107",
    "fq": True,
    "enforcement": "Enforce",
    "problem": "ConfigMap: enforcement: 'Of' must be one of Enforce, Observe, Off",
    "clean": False,
    "limits": 12,
    "policies": [
        {
            "namespace": "shop",
            "name": "web",
            "uid": "5f0b9a5e-7b67-4f5c-a4c5-4e3c9b1d2f10",
            "generation": 3,
            "matched": 3,
            "programmed": 3,
            "degraded": 3,
            "observed": 0,
            "failed": 0,
            "pending": 0,
            "overridden": 0,
            "overriddenBy": [{"policy": "shop/other", "direction": "egress", "pods": 3}],
            "off": 0,
            "effective": {"ingress": "100Mbit/s, burst 625kB, Delay 100ms"},
            "action": {"ingress": "Drop (degraded: no fq)"},
            "reasons": [{"reason": "NoFq", "pods": 3, "message": "the kernel has no fq"}],
        },
        {"namespace": "shop", "name": "other", "generation": 1, "rejected": "spec.mode: must be one of Off"},
    ],
    "pods": [
        {
            "namespace": "shop",
            "name": "web-0",
            "policy": "web",
            "direction": "ingress",
            "reason": "NoFq",
            "message": "the kernel has no fq",
        }
    ],
    "podsOmitted": 0,
}


def test_a_node_report_is_one_request_and_shown_in_the_columns(shop: Kubectl) -> None:
    """Store the applied object whole, without a subresource. Repeat it, because a running controller removes
    reports of unknown nodes.
    """
    report = {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketNode",
        "metadata": {"name": "node-of-a-test"},
        "status": NODE_STATUS,
    }
    words = ("--server-side", "--field-manager=tokenbucket-agent", "--filename=-")

    def applied_and_shown(*how: str) -> str:
        shop.run("apply", *words, stdin=json.dumps(report))
        return shop.run("get", "tbn", "--ignore-not-found", "node-of-a-test", *how)

    try:
        stored = until(lambda: applied_and_shown("--output=json"))
        assert json.loads(stored)["status"] == NODE_STATUS
        head, line = columns(until(applied_and_shown))
        assert head == NODE_COLUMNS
        assert line[:-2] == ["node-of-a-test", "False", "Enforce", "12", "true", "6.12.107", "0.1.0"]
        assert line[-1] == NODE_STATUS["problem"]
    finally:
        shop.delete(report)


def test_the_examples_of_the_repository_are_accepted(applied: Kubectl) -> None:
    """Accept the files that users copy."""
    documents = list(yaml.safe_load_all((CRDS.parents[1] / "examples" / "policy.yaml").read_text()))
    for document in documents:
        document["metadata"]["namespace"] = NAMESPACE
    applied.run("apply", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump_all(documents))
