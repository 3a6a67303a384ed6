"""An agent inside the test process. It reconciles on request, with a cache of CNI results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from tests.netns.agent import PINS
from tests.netns.lab import Pod as LabPod
from tokenbucket.agent.cluster import with_sandboxes
from tokenbucket.agent.executor import Executor
from tokenbucket.agent.observer import Observer
from tokenbucket.agent.reconciler import Reconciler
from tokenbucket.agent.verification import Verifier
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.node_addresses import NodeAddresses
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.cni import CniResults
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Policy
from tokenbucket.core.planning.attachment import AttachMode, DataPlane
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.status.node_status import DesiredInput, Outcome
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.fq import has_fq
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.node.view import View


class InProcessAgent:
    """Reconcile on request. The agent reads the parts of the kernel's state that events make stale."""

    def __init__(self, results: Path, attach: AttachMode = AttachMode.AUTO) -> None:
        self._results = results
        self._attach = attach
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        build = ensure_loaded(PINS)
        connection = self._stack.enter_context(connect())
        self._monitor = self._stack.enter_context(closing(Monitor(ignore={connection.portid})))
        tcx, self.cni = Tcx(PINS), self._stack.enter_context(closing(CniResults(self._results)))
        self.view = View(connection, tcx, self._monitor.ignoring)
        self.slots = self._stack.enter_context(Slots(PINS))
        programs = self._stack.enter_context(closing(Programs(PINS, build)))
        addresses = self._stack.enter_context(closing(NodeAddresses(PINS)))
        tcx.stubs.dispatch.point_to(programs.fds)
        self.reconciler = Reconciler(
            Observer(self.view, self.slots, programs),
            Executor(self.view, self.slots, programs, tcx.stubs, addresses),
            Locks.of(PINS),
            Capabilities(has_fq(connection), data_plane=DataPlane(self._attach, tcx.is_supported)),
            Verifier(self.slots, tcx.names),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reconcile(self, policies: Iterable[Policy], pods: Iterable[Pod]) -> Outcome:
        """Reconcile once, with the changes since the last call."""
        for event in self._monitor.read():
            self.view.mark_stale(event)
        self.cni.drain()
        self.cni.refresh()
        known = tuple(with_sandboxes(pod, self.cni) for pod in pods)
        return self.reconciler.reconcile(DesiredInput(tuple(policies), known))

    def limits(self) -> dict[str, set[tuple[str, str]]]:
        """Return the pods and directions whose limits are attached to each interface of the node. Read
        them from the kernel.
        """
        slots = self.slots.read()
        with connect() as connection:
            view = View(connection, Tcx(PINS))
            view.refresh()
            owned = {
                view.links[ifindex].name: [slots[each.slot].owner.key for each in found.ours]
                for ifindex, found in view.filters.items()
                if found.ours
            }
        return {
            name: {(key.subject.name, key.direction.value) for key in keys} for name, keys in owned.items()
        }

    def limited(self) -> dict[str, set[str]]:
        """Return the pods whose limits are attached to each interface of the node."""
        return {name: {pod for pod, _ in limits} for name, limits in self.limits().items()}


def write_result(folder: Path, pod: PodId, sandbox: str, network: LabPod, *, named: bool = True) -> Path:
    """Write the result that the container runtime writes after it sets up the network of a pod."""
    folder.mkdir(exist_ok=True)
    inside = [{"name": "eth0", "sandbox": f"/var/run/netns/{network.netns}"}] if named else []
    content: dict[str, Any] = {
        "kind": "cniCacheV1",
        "containerId": sandbox,
        "ifName": "eth0",
        "networkName": "pods",
        "cniArgs": [
            ["K8S_POD_NAMESPACE", pod.namespace],
            ["K8S_POD_NAME", pod.name],
            ["K8S_POD_UID", pod.uid],
        ],
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": network.veth}, *inside],
            "ips": [{"address": address} for address in network.addresses],
        },
    }
    path = folder / f"pods-{sandbox}-eth0"
    path.write_text(json.dumps(content))
    return path
