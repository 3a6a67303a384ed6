"""Find other components that also limit a pod, at its interfaces on the node.

The CNI bandwidth plugin, and Calico, add a queue of their own (``tbf``, or ``htb``): at the host-side
interface for packets to the pod, and at an ``ifb`` device for packets from the pod.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink.filters import LinkFilters
from tokenbucket.netlink.ifb import KIND as IFB
from tokenbucket.netlink.links import Link
from tokenbucket.node.view import View

_SHAPERS = {"tbf", "htb"}
_OWNERS = {"bwp": "the CNI bandwidth plugin"}
"""Owners of ifb devices by the prefix of their names."""
_SOMETHING = "the CNI bandwidth plugin, or Calico"
_CILIUM = Path("/sys/fs/bpf/tc/globals/cilium_throttle")
"""The map of Cilium's bandwidth manager. Cilium removes it if the manager is off."""
_FIX = "let only one of them limit the pod"


def find_shapers(view: View, links: Iterable[Link]) -> dict[Direction, str]:
    """Return a message for each direction that another component shapes at one of a pod's interfaces."""
    found = {}
    for link in links:
        root = view.roots.get(link.ifindex)
        if root and root.kind in _SHAPERS:
            message = f"{link.name}: a {root} of {_SOMETHING}, also limits the pod; {_FIX}"
            found[Direction.INGRESS] = message
        for foreign in view.filters.get(link.ifindex, LinkFilters()).foreign:
            device, root = view.links.get(foreign.redirects_to), view.roots.get(foreign.redirects_to)
            if (
                foreign.hook is Hook.INGRESS
                and device
                and device.kind == IFB
                and root
                and root.kind in _SHAPERS
            ):
                owner = _OWNERS.get(device.name[:3], _SOMETHING)
                message = f"{link.name}: {device.name} with a {root} of {owner}, also limits the pod; {_FIX}"
                found[Direction.EGRESS] = message
    return found


def why_cilium_limits() -> str:
    """Return a message if Cilium's bandwidth manager runs, or an empty text."""
    if not _CILIUM.exists():
        return ""
    return f"pod: Cilium's bandwidth manager reads the same annotations and also limits the pod; {_FIX}"
