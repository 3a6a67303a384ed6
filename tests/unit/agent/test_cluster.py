"""The input of an agent from the API server, above all the enforcement mode."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.agent.options import AgentOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.core.api.enforcement import NODE_LABEL, ModeSource
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.api.pod import Pod, PodId, Sandbox
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Policy, Rate
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.status.node_status import DesiredInput, NodeState, policy_reports

SWITCH = {"name": "switch", "namespace": "tokenbucket"}


@pytest.fixture
def source(api: FakeApi, tmp_path: Path) -> Iterator[ClusterSource]:
    """Return a source that has listed everything, with the mode Enforce."""
    options = AgentOptions(
        node="node",
        namespace="tokenbucket",
        pod="agent",
        config_map="switch",
        protected=frozenset({"kube-system"}),
        cni_results=tmp_path / "results",
    )
    with closing(ClusterSource(options)) as source:
        for watch in source.informers.watches:
            watch.store.synced.set()
        switch(source, "Enforce")
        assert enforcement(source) is Mode.ENFORCE
        yield source


def switch(source: ClusterSource, word: str, **data: str) -> None:
    source.config.put({"metadata": SWITCH, "data": {"enforcement": word, **data}})


def label(source: ClusterSource, **labels: str) -> None:
    source._node.put({"metadata": {"name": "node", "uid": "node", "labels": labels}})


def enforcement(source: ClusterSource) -> Mode:
    return snapshot(source).enforcement


def snapshot(source: ClusterSource) -> DesiredInput:
    inputs = source.snapshot()
    assert inputs
    return inputs


def test_the_log_names_the_place_that_changed_the_mode(
    source: ClusterSource, caplog: pytest.LogCaptureFixture
) -> None:
    """Log it once, so that users do not take a detachment for a fault."""
    switch(source, "Off")
    assert [enforcement(source) for _ in range(2)] == [Mode.OFF] * 2
    label(source, **{NODE_LABEL: "Observe"})
    assert enforcement(source) is Mode.OBSERVE
    changes = [vars(record) for record in caplog.records]
    assert [(each["before"], each["now"], each["by"]) for each in changes] == [
        (Mode.ENFORCE, Mode.OFF, "release"),
        (Mode.OFF, Mode.OBSERVE, "label"),
    ]


def test_a_change_has_its_time_in_one_snapshot(source: ClusterSource) -> None:
    """Take the first of several changes, and none without a new value."""
    snapshot(source)
    assert snapshot(source).received_at is None
    before = time.monotonic()
    switch(source, "Off")
    between = time.monotonic()
    switch(source, "Observe")
    received_at = snapshot(source).received_at
    assert received_at is not None
    assert before <= received_at <= between
    switch(source, "Observe")
    assert snapshot(source).received_at is None


def test_a_deleted_enforcement_configmap_keeps_the_mode_and_is_reported(source: ClusterSource) -> None:
    switch(source, "Off")
    assert enforcement(source) is Mode.OFF
    source.config.remove({"metadata": SWITCH})
    assert enforcement(source) is Mode.OFF
    assert "ConfigMap: is missing" in snapshot(source).problem


def test_the_override_is_reported_with_its_mode_and_age(source: ClusterSource) -> None:
    """Report it until it is deleted, for any state of the ConfigMap of the release."""
    override = {"name": "switch-override", "namespace": "tokenbucket"}
    dated = {**override, "creationTimestamp": "2026-01-02T03:04:05Z"}
    source.override.put({"metadata": dated, "data": {"enforcement": "off"}})
    switch(source, "Observe")
    inputs = snapshot(source)
    assert (inputs.enforcement, inputs.enforcement_from) == (Mode.OFF, ModeSource.OVERRIDE)
    assert "override ConfigMap: sets Off since 2026-01-02T03:04:05Z" in inputs.problem
    source.override.remove({"metadata": override})
    inputs = snapshot(source)
    assert (inputs.enforcement, inputs.enforcement_from, inputs.problem) == (
        Mode.OBSERVE,
        ModeSource.RELEASE,
        "",
    )


def test_an_enforcement_configmap_deleted_with_the_release_is_no_problem(source: ClusterSource) -> None:
    """Expect agents that still run."""
    switch(source, "Off", cleanup="true")
    assert enforcement(source) is Mode.OFF
    source.config.remove({"metadata": SWITCH})
    inputs = snapshot(source)
    assert inputs.cleanup
    assert inputs.problem == ""


def test_a_clean_node_reports_its_pods_as_off() -> None:
    """Distinguish this from policies that select no pod."""
    limit = Limit(Rate(10**6), exceed_action=ExceedAction.DROP)
    policy = Policy("shop", "web", Selector(frozenset()), {Direction.INGRESS: limit})
    web = Pod(PodId("shop", "web-0"), {}, frozenset())
    stats = ReconcileStats()
    stats.record_clean(DesiredInput((policy,), (web,), cleanup=True))
    assert stats.state
    [report] = policy_reports(stats.state)
    assert (stats.state.inputs.cleanup, report.pods.matched, report.pods.off) == (True, 1, 1)


def put(source: ClusterSource, name: str, ip: str) -> None:
    """Store a pod whose status has this address."""
    metadata = {"namespace": "shop", "name": name, "uid": name}
    source.pods.put({"metadata": metadata, "spec": {}, "status": {"podIP": ip}})


def cache(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Write the CNI result of a pod."""
    args = [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name], ["K8S_POD_UID", name]]
    cached = {"kind": "cniCacheV1", "containerId": name, "ifName": "eth0", "cniArgs": args, "result": result}
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / f"net-{name}-eth0").write_text(json.dumps(cached))


def test_pods_have_the_addresses_of_their_cni_results(source: ClusterSource, tmp_path: Path) -> None:
    """Keep those of the status too, because the agent compares both with the kernel."""
    put(source, "web", "10.0.0.9")
    cache(tmp_path, "web", {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]})
    [pod] = source._pods()
    assert pod.addresses == {ip_address("10.0.0.9")}
    assert pod.sandboxes == (Sandbox(frozenset({ip_address("10.0.0.5")})),)


def test_a_static_pod_is_found_by_the_uid_of_the_kubelet(source: ClusterSource, tmp_path: Path) -> None:
    """Use this uid, because the API server assigns another one to the mirror pod."""
    annotations = {"kubernetes.io/config.hash": "web", "kubernetes.io/config.mirror": "web"}
    metadata = {"namespace": "shop", "name": "web", "uid": "mirror", "annotations": annotations}
    source.pods.put({"metadata": metadata, "spec": {}, "status": {}})
    cache(tmp_path, "web", {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]})
    [pod] = source._pods()
    assert pod.sandboxes == (Sandbox(frozenset({ip_address("10.0.0.5")})),)
    assert pod.id.uid == "mirror"


def policy(action: str = "Drop", namespace: str = "shop", uid: str = "1", **metadata: Any) -> dict[str, Any]:
    """Return a policy for all pods of a namespace."""
    return {
        "apiVersion": API_VERSION,
        "kind": POLICY,
        "metadata": {"name": "web", "namespace": namespace, "uid": uid, **metadata},
        "spec": {"podSelector": {}, "ingress": {"rate": {"bits": "1M"}, "exceedAction": action}},
    }


def of_newer_versions() -> list[dict[str, Any]]:
    """Return policies that only newer agents can parse: a value, a mode, and a field."""
    with_field = policy(generation=2)
    with_field["spec"]["ingress"]["classes"] = [{"name": "web"}]
    with_mode = policy(generation=2)
    with_mode["spec"]["mode"] = "Audit"
    return [policy("Shape", generation=2), with_mode, with_field]


@pytest.mark.parametrize("newer", of_newer_versions())
def test_the_last_valid_version_stays_enforced_if_a_newer_one_is_rejected(
    source: ClusterSource, newer: dict[str, Any]
) -> None:
    """Keep it through further rejections, and report it with the new generation and the error."""
    source.pods.put({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {}, "status": {}})
    source.policies.put(policy(generation=1))
    (valid,) = snapshot(source).policies
    for generation in (2, 3):
        newer["metadata"]["generation"] = generation
        source.policies.put(newer)
        inputs = snapshot(source)
        assert inputs.policies == (valid,)
        (report,) = policy_reports(NodeState(inputs))
        assert (report.generation, report.pods.matched) == (generation, 1)
        assert report.rejected
    source.policies.put(policy(generation=4, action="Mark") | {"spec": policy()["spec"]})
    assert snapshot(source).rejected == ()


def test_no_version_stays_enforced_of_another_policy_or_of_a_deleted_one(source: ClusterSource) -> None:
    """Compare the uid: a policy that was made again under the same name is another one."""
    source.policies.put(policy())
    source.policies.put(policy("Shape", uid="2"))
    assert snapshot(source).policies == ()
    source.policies.put(policy(uid="2"))
    source.policies.remove(policy(uid="2"))
    source.policies.put(policy("Shape", uid="2"))
    assert snapshot(source).policies == ()


def test_protection_of_a_namespace_removes_the_last_valid_version(source: ClusterSource) -> None:
    """Explain that the administrator forbids limits there."""
    source.policies.put(policy(namespace="kube-system", labels={"tokenbucket.dev/allow-protected": "true"}))
    assert snapshot(source).policies
    source.policies.put(policy(namespace="kube-system"))
    inputs = snapshot(source)
    assert inputs.policies == ()
    assert "is protected" in inputs.rejected[0].message


def test_a_rejected_policy_is_reported_only_where_its_namespace_has_pods(source: ClusterSource) -> None:
    """Keep one invalid policy from causing a write on every node."""
    source.policies.put(policy("Shape"))
    assert policy_reports(NodeState(snapshot(source))) == ()
    source.pods.put({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {}, "status": {}})
    (report,) = policy_reports(NodeState(snapshot(source)))
    assert report.rejected


def test_a_run_uses_policies_up_to_a_version_that_it_contains(source: ClusterSource) -> None:
    """Count events without a change of a policy as used: statuses change all the time."""
    source.policies.put(policy(resourceVersion="7"))
    source.policies.put(policy(resourceVersion="9"))
    assert snapshot(source).policies_version == 9
    assert source.policies.changed_at == 7


def test_a_changed_annotation_changes_the_limit_and_wakes_the_loop(api: FakeApi, tmp_path: Path) -> None:
    """Change nothing and wake no loop without the option."""
    for reads in (True, False):
        with closing(ClusterSource(annotation_options(tmp_path, reads=reads))) as source:
            found = []
            for value in ("1M", "2M", None):
                annotations = {"kubernetes.io/ingress-bandwidth": value} if value else {}
                source.drain()
                source.pods.put(annotated_pod("shop", annotations))
                [pod] = source.pods.values()
                found.append((is_awake(source), pod.annotated and dict(pod.annotated.policy.limits)))
        limits = [{Direction.INGRESS: Limit(Rate(rate))} for rate in (10**6, 2 * 10**6)]
        first = (True, None)  # the pod itself is new
        assert found == (
            [(True, limits[0]), (True, limits[1]), (True, None)]
            if reads
            else [first, (False, None), (False, None)]
        )


def test_annotations_in_a_protected_namespace_need_the_label(api: FakeApi, tmp_path: Path) -> None:
    """Require the label, as for policies."""
    with closing(ClusterSource(annotation_options(tmp_path, reads=True))) as source:
        annotations = {"kubernetes.io/ingress-bandwidth": "1M"}
        source.pods.put(annotated_pod("kube-system", annotations))
        [pod] = source.pods.values()
        assert pod.annotated
        assert pod.annotated.policy.limits == {}
        assert "a limit in annotations there needs the label" in pod.annotated.problems[Direction.INGRESS]
        allowed = {"tokenbucket.dev/allow-protected": "true"}
        source.pods.put(annotated_pod("kube-system", annotations, labels=allowed))
        [pod] = source.pods.values()
        assert pod.annotated
        assert pod.annotated.problems == {}


def annotation_options(tmp_path: Path, *, reads: bool) -> AgentOptions:
    return AgentOptions(
        node="node",
        namespace="tokenbucket",
        pod="agent",
        config_map="switch",
        protected=frozenset({"kube-system"}),
        bandwidth_annotations=reads,
        cni_results=tmp_path / "results",
    )


def annotated_pod(namespace: str, annotations: dict[str, str], **metadata: object) -> dict[str, Any]:
    about = {"name": "web-0", "uid": "u", "namespace": namespace, "annotations": annotations, **metadata}
    return {"metadata": about, "status": {"podIP": "10.0.0.2"}}


def is_awake(source: ClusterSource) -> bool:
    return bool(select.select([source], [], [], 0)[0])
