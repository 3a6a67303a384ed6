"""Observation of the kernel: slots, filters, queues, and the network namespaces in which pods are limited."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Slot
from tokenbucket.core.planning.attachment import Hook, HookPoint, Interface
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.namespace_moves import Placements
from tokenbucket.core.planning.plan import Attached, Observed
from tokenbucket.netlink.filters import Filter
from tokenbucket.netlink.links import VETH
from tokenbucket.node.attachments import is_shared
from tokenbucket.node.view import View


@dataclass(slots=True)
class Observer:
    """Reads the kernel's state. Belongs to the thread of the view."""

    view: View
    slots: Slots
    programs: Programs

    def read(self, settled: AbstractSet[PodId]) -> tuple[Mapping[int, Slot], Placements]:
        """Refresh the view, and return the slots in use and the placements of the settled pods.

        Raises KernelError.
        """
        self.view.refresh()
        slots = self.slots.read()
        placements = self._placements(slots, settled)
        if not self.view.pod_namespaces.searched and self._may_miss_filters(slots, settled, placements):
            # An earlier agent, or an earlier connection, may have left a filter inside a pod.
            self.view.pod_namespaces.search()
            self.view.refresh()
            placements = self._placements(slots, settled)
        return slots, placements

    def _may_miss_filters(
        self, slots: Mapping[int, Slot], settled: AbstractSet[PodId], placements: Placements
    ) -> bool:
        """Return whether settled pods may have filters in namespaces that the view does not know.

        A guard on the node shows the placement of a pod, and that there is a filter inside.
        """
        owners = {slot.owner.key for slot in slots.values() if slot.owner.key.subject in settled}
        return any(placements.of(key.subject) is None or key.is_guard for key in owners)

    def _placements(self, slots: Mapping[int, Slot], settled: AbstractSet[PodId]) -> Placements:
        """Return the namespaces of the settled pods' limits, as long as these have interfaces to limit."""
        placements = Placements()
        for namespace, filters, _ in self.view.all_namespaces():
            for ours in (ours for found in filters.values() for ours in found.ours):
                slot = slots.get(self.slots.resolve_slot(ours.slot, ours.prog_id))
                if not slot or slot.owner.key.subject not in settled:
                    continue
                nsid = self.view.namespace_behind(Interface(ours.ifindex, namespace))
                if nsid is not None and self.view.leading_to(nsid).can_be_limited:
                    placements.add(slot.owner.key.subject, nsid)
        return placements

    def survey(self, capabilities: Capabilities) -> Capabilities:
        """Return the capabilities with the programs of others at the interfaces that lead to pods."""
        links = self.view.links
        to_pods = [
            found
            for ifindex, found in self.view.filters.items()
            if ifindex in links and links[ifindex].nsid is not None
        ]
        foreign = [each for found in to_pods for each in found.foreign]
        known = capabilities.data_plane
        data_plane = replace(
            known,
            bypassed=known.bypassed | ({Direction.INGRESS} if self._has_redirects() else set()),
            is_shared=any(is_shared(found) for found in to_pods),
            redirects=any(each.prog_id and each.hook is Hook.INGRESS for each in foreign),
            intercepts=any(link.xdp_program_id for link in links.values() if link.nsid is not None),
        )
        return replace(capabilities, data_plane=data_plane)

    def _has_redirects(self) -> bool:
        """Return whether an agent has found that packets bypass host-side hooks.

        Then it delays packets that a pod receives by veth inside the pod.
        """
        ends = {link.peer_ifindex for link in self.view.links.values() if link.kind == VETH}
        inside = (
            found for inode, filters, _ in self.view.all_namespaces() if inode for found in filters.values()
        )
        return any(ours.redirects and ours.ifindex in ends for found in inside for ours in found.ours)

    def _is_current(self, ours: Filter) -> bool:
        """Return whether an attachment runs this build, and before the programs of others."""
        return ours.is_first and ours.prog_id == self.programs.ids[ours.hook]

    def observe(self, slots: Mapping[int, Slot]) -> Observed:
        """Return the observed state, including the namespaces that were entered since the last refresh."""
        attached, queues = {}, set()
        for namespace, filters, roots in self.view.all_namespaces():
            for ours in (ours for found in filters.values() for ours in found.ours):
                if self.slots.limits_device_in_another_layout(ours.slot, ours.prog_id):
                    continue
                point = HookPoint(Interface(ours.ifindex, namespace), ours.hook, ours.mechanism)
                slot = self.slots.resolve_slot(ours.slot, ours.prog_id)
                attached[point] = Attached(slot, self._is_current(ours), ours.redirects)
            queues |= {Interface(ifindex, namespace) for ifindex, root in roots.items() if root.ours}
        return Observed(slots, attached, self.slots.count, queues, self.view.pod_namespaces.ifbs)
