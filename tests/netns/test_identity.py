"""Limits attach to the right pod while CNI results and statuses are outdated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns.agent import drop, free_slots, policy
from tests.netns.in_process import InProcessAgent, write_result
from tests.netns.lab import Lab, ip
from tests.netns.lab import Pod as LabPod
from tokenbucket.core.api.parse import parse_policy
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
