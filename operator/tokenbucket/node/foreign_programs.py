"""The programs of others at the interfaces of the node."""

from __future__ import annotations

from tokenbucket.bpf.tcx import ProgramNames
from tokenbucket.core.planning.attachment import Hook, Interface, Mechanism
from tokenbucket.core.planning.foreign import ForeignProgram
from tokenbucket.netlink.filters import ForeignFilter
from tokenbucket.netlink.links import Link
from tokenbucket.node.view import View


def programs_to_pods(view: View, names: ProgramNames) -> frozenset[ForeignProgram]:
    """Return the programs of others at the interfaces of the node that lead to pods."""
    to_pods = (link for link in view.links.values() if link.nsid is not None)
    return frozenset().union(*(programs_at(view, names, link) for link in to_pods))


def programs_at(view: View, names: ProgramNames, link: Link) -> frozenset[ForeignProgram]:
    """Return all programs of others at an interface of the node."""
    foreign = view.filters_at(Interface(link.ifindex)).foreign
    return xdp_at(names, link) | {describe(link.name, each) for each in foreign}


def xdp_at(names: ProgramNames, link: Link) -> frozenset[ForeignProgram]:
    """Return the XDP program of an interface, if it has one."""
    if not link.xdp_program_id:
        return frozenset()
    name = names.of(link.xdp_program_id)
    return frozenset({ForeignProgram(link.name, Hook.INGRESS, Mechanism.XDP, name, link.xdp_program_id)})


def describe(interface: str, found: ForeignFilter) -> ForeignProgram:
    """Return a foreign filter as a value of the core."""
    name = found.name or f"{found.kind} filter"
    return ForeignProgram(interface, found.hook, found.mechanism, name, found.prog_id or 0, found.link_id)
