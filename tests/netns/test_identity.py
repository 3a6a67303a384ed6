"""Limits attach to the right pod while CNI results and statuses are outdated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns.agent import drop, free_slots, policy
from tests.netns.in_process import InProcessAgent, write_result
from tests.netns.lab import Lab, ip
from tests.netns.lab import Pod as LabPod
from tokenbucket.core.api.parse import parse_pod, parse_policy
from tokenbucket.core.api.pod import Pod, PodId

POLICY = parse_policy(policy("web", app="web", ingress=drop(1, 10)))
WEB, OTHER = PodId("default", "web", "web"), PodId("default", "other", "other")


@pytest.fixture(autouse=True)
def _freed() -> None:
    free_slots()


def known(pod: PodId, network: LabPod | None) -> Pod:
    """Return a pod whose status contains the addresses of a network."""
    addresses = frozenset({network.ip}) if network else frozenset()
    return Pod(pod, {"app": pod.name}, addresses)


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_results_of_lost_sandboxes_do_not_move_a_limit_to_another_pod(
    lab: Lab, tmp_path: Path, *, named: bool
) -> None:
    """Their files are newer than the valid results, as on a node without a clock."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    lost = [
        LabPod("x", "pod-x", other.addresses, ["veth-x"]),
        LabPod("y", "pod-y", web.addresses, ["veth-y"]),
    ]
    for pod, network, before in ((WEB, web, lost[0]), (OTHER, other, lost[1])):
        os.utime(write_result(tmp_path, pod, f"new-{pod.name}", network, named=named), ns=(1, 1))
        write_result(tmp_path, pod, f"old-{pod.name}", before, named=named)
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [known(WEB, web), known(OTHER, other)])
        assert agent.limited() == {web.veth: {"web"}}


def test_a_pod_is_limited_before_it_has_a_status(lab: Lab, tmp_path: Path) -> None:
    """The CNI result identifies the pod, although the result of its lost sandbox still exists."""
    web = lab.pod("web", ["10.2.1.2/24"])
    lab.pod("other", ["10.3.1.2/24"])
    write_result(tmp_path, WEB, "old", LabPod("x", "pod-x", ["10.3.1.2/24"], ["veth-x"]))
    write_result(tmp_path, WEB, "new", web)
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [known(WEB, None), known(OTHER, None)])
        assert agent.limited() == {web.veth: {"web"}}


def test_an_outdated_status_limits_no_other_pod(lab: Lab, tmp_path: Path) -> None:
    """After a restart of the node, a pod has an address that another pod's status still contains."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    write_result(tmp_path, WEB, "web", web)
    write_result(tmp_path, OTHER, "other", other)
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [known(WEB, other), known(OTHER, web)])
        assert agent.limited() == {web.veth: {"web"}}


def test_a_limit_is_removed_from_a_pod_with_another_identity(lab: Lab, tmp_path: Path) -> None:
    """The result arrives after the pod got a limit from an outdated status."""
    other = lab.pod("other", ["10.3.1.2/24"])
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [known(WEB, other), known(OTHER, None)])
        assert agent.limited() == {other.veth: {"web"}}, "status and kernel agree"
        write_result(tmp_path, OTHER, "other", other)
        agent.reconcile([POLICY], [known(WEB, other), known(OTHER, None)])
        assert agent.limited() == {}


def test_an_address_that_another_pod_took_is_no_conflict(lab: Lab, tmp_path: Path) -> None:
    """The CNI result proves that the other pod is in another namespace."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    write_result(tmp_path, OTHER, "other", other)
    ip("address", "add", "10.2.1.2/32", "dev", "lo", netns=other.netns)
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [known(WEB, web), known(OTHER, other)])
        assert agent.limited() == {web.veth: {"web"}}


def test_an_address_that_another_pod_takes_later_is_no_conflict(lab: Lab, tmp_path: Path) -> None:
    """The address changes hands while the limit is attached. The limit stays, and there is no reason."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    write_result(tmp_path, WEB, "web", web)
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [known(WEB, web)])
        ip("address", "add", "10.2.1.2/32", "dev", "eth0", netns=other.netns)
        outcome = agent.reconcile([POLICY], [known(WEB, web)])
        assert (outcome.actions, outcome.deviations) == (0, ())
        ip("address", "delete", "10.2.1.2/24", "dev", "eth0", netns=web.netns)
        outcome = agent.reconcile([POLICY], [known(WEB, web)])
        assert agent.limited() == {web.veth: {"web"}}


def mirror(config_hash: str, uid: str, network: LabPod | None = None) -> Pod:
    """Return the mirror pod that represents a static pod in the API server."""
    annotations = {"kubernetes.io/config.hash": config_hash, "kubernetes.io/config.mirror": config_hash}
    metadata = {"namespace": "default", "name": "web", "uid": uid, "labels": {"app": "web"}}
    document = {"kind": "Pod", "metadata": metadata | {"annotations": annotations}, "spec": {}}
    return parse_pod(document | {"status": {"podIP": str(network.ip)} if network else {}})


def test_a_static_pod_is_limited_before_it_has_a_status_and_stays_limited(lab: Lab, tmp_path: Path) -> None:
    """The result has the uid of the kubelet, and the mirror pod another one, which can change."""
    web = lab.pod("web", ["10.2.1.2/24"])
    lab.pod("other", ["10.3.1.2/24"])
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [mirror("first", "a")])
        assert agent.limited() == {}
        write_result(tmp_path, PodId("default", "web", "first"), "web", web)
        agent.reconcile([POLICY], [mirror("first", "a")])
        assert agent.limited() == {web.veth: {"web"}}
        assert agent.reconcile([POLICY], [mirror("first", "a", web)]).actions == 0


def test_a_static_pod_that_replaces_another_is_limited_before_it_has_a_status(
    lab: Lab, tmp_path: Path
) -> None:
    """The kubelet gives it another uid. The result of the previous pod may stay."""
    before, after = lab.pod("before", ["10.2.1.2/24"]), lab.pod("after", ["10.3.1.2/24"])
    write_result(tmp_path, PodId("default", "web", "first"), "before", before)
    with InProcessAgent(tmp_path) as agent:
        agent.reconcile([POLICY], [mirror("first", "a", before)])
        write_result(tmp_path, PodId("default", "web", "second"), "after", after)
        agent.reconcile([POLICY], [mirror("second", "b")])
        assert agent.limited() == {after.veth: {"web"}}
