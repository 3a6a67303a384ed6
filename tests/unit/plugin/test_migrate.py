"""``kubectl tokenbucket migrate`` against an API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.unit.fake_api import FakeApi, Seen
from tests.unit.plugin.conftest import POLICY, Run
from tests.unit.plugin.test_migration import TEN, TWENTY
from tokenbucket.apiserver.resources import PODS, POLICIES, REPORTS, Resource
from tokenbucket.manifests import parse_text
from tokenbucket.plugin.resources import WORKLOADS

DEPLOYMENTS = Resource("apps", "v1", "deployments")
MIGRATE = ("migrate", "-n", "shop")


@pytest.fixture
def annotated(cluster: FakeApi) -> FakeApi:
    """Provide a cluster with an annotated Deployment, and a bare pod without labels."""
    cluster.kinds |= {Resource(kind.group, kind.version, kind.plural) for kind in WORKLOADS.values()}
    labels = {"app": "db"}
    template = {"metadata": {"labels": labels, "annotations": TEN}, "spec": {}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    cluster.put(DEPLOYMENTS, "db", "shop", spec=spec)
    cluster.put(PODS, "bare", "shop", metadata={"annotations": TWENTY}, status={})
    cluster.put(PODS, "elsewhere", "bank", metadata={"annotations": TWENTY, "labels": {"a": "b"}}, status={})
    return cluster


def test_the_yaml_output_is_a_valid_manifest(annotated: FakeApi, run: Run) -> None:
    """Exclude notes, because users write the output to a file."""
    done = run(*MIGRATE, "-o", "yaml")
    assert done.code == 0
    parsed = parse_text(done.out.encode(), "out")
    assert parsed.errors == ()
    assert [str(policy) for policy in parsed.policies] == ["shop/db"]
    assert done.err == "note: shop/bare (Pod): has no label that selects it; add a label to its pods\n"


def test_the_table_and_the_json_have_the_same_policies(annotated: FakeApi, run: Run) -> None:
    """The wide table has the limits with their defaults, and the selectors."""
    table = run(*MIGRATE).out.splitlines()
    assert [row.split() for row in table] == [
        ["NAMESPACE", "POLICY", "INGRESS", "EGRESS", "ANNOTATIONS", "OF"],
        ["shop", "db", "10Mbit/s", "-", "Deployment", "db"],
    ]
    [_, wide] = run(*MIGRATE, "-o", "wide").out.splitlines()
    assert "10Mbit/s, burst 62.5kB, Delay 100ms" in wide
    assert "app=db" in wide
    [policy] = json.loads(run(*MIGRATE, "-o", "json").out)["items"]
    assert policy == yaml.safe_load(run(*MIGRATE, "-o", "yaml").out)


def test_all_namespaces_are_migrated_on_request(annotated: FakeApi, run: Run) -> None:
    """Write each policy to the namespace of its pods."""
    names = [
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in yaml.safe_load_all(run("migrate", "-A", "-o", "yaml").out)
    ]
    assert names == [("bank", "elsewhere"), ("shop", "db")]


def test_labels_of_pods_select_without_the_right_to_list_workloads(annotated: FakeApi, run: Run) -> None:
    """Name the missing right in a note."""
    annotated.put(PODS, "db-0", "shop", metadata={"annotations": TEN, "labels": {"app": "db"}}, status={})

    def of_workloads(seen: Seen) -> bool:
        return seen.path.startswith(("/apis/apps", "/apis/batch"))

    for _ in WORKLOADS:
        annotated.fail(of_workloads, 403)
    done = run(*MIGRATE, "-o", "yaml")
    [policy] = parse_text(done.out.encode(), "out").policies
    assert policy.name == "db-0"
    assert "list deployments.apps in namespace shop" in done.err


def test_nothing_to_migrate_is_no_error(cluster: FakeApi, run: Run, tmp_path: Path) -> None:
    """Print an empty list for programs."""
    cluster.kinds |= {Resource(kind.group, kind.version, kind.plural) for kind in WORKLOADS.values()}
    assert run(*MIGRATE).out == "no annotation can be replaced by a policy\n"
    assert json.loads(run(*MIGRATE, "-o", "json").out)["items"] == []
    assert run(*MIGRATE, "-o", "yaml").out.strip() == ""


def test_the_policies_of_the_cluster_keep_their_names(annotated: FakeApi, run: Run) -> None:
    annotated.put(POLICIES, "db", "shop", **POLICY)
    [policy] = parse_text(run(*MIGRATE, "-o", "yaml").out.encode(), "out").policies
    assert policy.name == "db-1"


def test_without_the_right_to_list_policies_a_note_names_it(annotated: FakeApi, run: Run) -> None:
    annotated.fail(lambda seen: seen.path.endswith("/tokenbucketpolicies"), 403)
    done = run(*MIGRATE, "-o", "yaml")
    assert done.code == 0
    assert "list tokenbucketpolicies.tokenbucket.dev in namespace shop is missing" in done.err


def test_a_cluster_without_the_product_is_migrated(annotated: FakeApi, run: Run) -> None:
    """Print the policies before the installation."""
    annotated.kinds -= {POLICIES, REPORTS}
    assert run(*MIGRATE, "-o", "yaml").out.startswith("apiVersion: tokenbucket.dev/v1alpha1")
