"""Limits that a command cannot see: their filters are here, and their pins are not.

Pins are in one bpffs. Another bpffs, mounted over the first or in another mount namespace, hides them, while
the programs continue to run.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import Mechanism
from tokenbucket.errors import TokenBucketError
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.filters import ForeignFilter
from tokenbucket.netlink.links import read_links
from tokenbucket.netlink.namespaces import own_namespace
from tokenbucket.node.attachments import Attachments

_STUBS = ("tb_ingress_", "tb_egress_")


class UnseenError(TokenBucketError):
    """There are limits that this process cannot read."""


def check_visible(pins: Pins) -> None:
    """Check that all of tokenbucket's programs on interfaces of this namespace are pinned in this folder.

    Raises:
        UnseenError: an interface has a program whose pin is elsewhere.
        KernelError: the kernel rejects a request.
    """
    if found := sorted(set(_unpinned(pins))):
        raise UnseenError(
            f"{', '.join(found)}: limited by programs that are not pinned in {pins.root}; "
            "another bpffs may be mounted there: run the command in the mount namespace of the agent, "
            "or remove these limits with 'tokenbucket detach --all'"
        )


def where(pins: Pins) -> str:
    """Return where commands look."""
    return f"looked in {pins.root}, and at the interfaces of this network namespace"


def _unpinned(pins: Pins) -> Iterator[str]:
    pinned = pins.program_ids()
    with connect() as connection:
        links = read_links(connection)
        found = Attachments(connection, Tcx(pins), own_namespace().inode).read_all(links)
    for ifindex, programs in found.items():
        filters = any(
            each.mechanism is Mechanism.CLSACT and each.prog_id not in pinned for each in programs.ours
        )
        if filters or any(map(_is_stub, programs.foreign)):
            yield links[ifindex].name


def _is_stub(program: ForeignFilter) -> bool:
    return program.mechanism is Mechanism.TCX and program.name.startswith(_STUBS)
