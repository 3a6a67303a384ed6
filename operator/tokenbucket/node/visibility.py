"""Limits that a command cannot see: their filters are here, and their pins are not, or the other way round.

A process without SYS_ADMIN sees no filter in other network namespaces, such as those of pods.

Pins are in one bpffs. Another bpffs, mounted over the first or in another mount namespace, hides them, while
the programs continue to run.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.limits.slot import DeviceId
from tokenbucket.core.planning.attachment import Mechanism
from tokenbucket.errors import IgnoreErrno, TokenBucketError
from tokenbucket.netlink.connection import connect, may_enter
from tokenbucket.netlink.filters import ForeignFilter
from tokenbucket.netlink.links import read_links
from tokenbucket.netlink.namespaces import Namespace, own_namespace
from tokenbucket.node.attachments import Attachments
from tokenbucket.node.snapshot import LimitSnapshot

_STUBS = ("tb_ingress_", "tb_egress_", "tb_ifb_")


class UnseenError(TokenBucketError):
    """There are limits that this process cannot read."""


def check_visible(pins: Pins, namespaces: Iterable[Namespace] = ()) -> None:
    """Check that all of tokenbucket's programs on interfaces are pinned in this folder.

    ``namespaces`` are searched in addition to this one, except those that ended or may not be entered.

    Raises:
        UnseenError: an interface has a program whose pin is elsewhere.
        KernelError: the kernel rejects a request.
    """
    own = own_namespace()
    found = set(_unpinned(pins, own))
    for namespace in namespaces:
        with IgnoreErrno(errno.ENOENT, errno.EINVAL, errno.EPERM):
            if namespace.inode != own.inode:
                found |= {f"{name} in {namespace.path}" for name in _unpinned(pins, namespace)}
    if found:
        raise UnseenError(
            f"{', '.join(sorted(found))}: limited by programs that are not pinned in {pins.root}; "
            "another bpffs may be mounted there: run the command in the mount namespace of the agent"
        )


def is_hidden(limit: LimitSnapshot) -> bool:
    """Return whether a limit may have a hook that this process cannot see. Raises KernelError."""
    subject = limit.slot.owner.key.subject
    is_here = isinstance(subject, DeviceId) and subject.netns_inode == own_namespace().inode
    return not (limit.places or is_here or may_enter())


def check_hooks(limits: Iterable[LimitSnapshot]) -> None:
    """Check that no limit has a hook that this process cannot see. Raises UnseenError or KernelError."""
    hidden = [str(limit.slot.owner.key) for limit in limits if is_hidden(limit)]
    if hidden:
        raise UnseenError(
            f"{', '.join(hidden)}: the hook is not visible, because this process may not enter other network "
            "namespaces; run the command with SYS_ADMIN, such as on the node"
        )


def where(pins: Pins) -> str:
    """Return where commands look."""
    return f"looked in {pins.root}, and at the interfaces of this network namespace"


def _unpinned(pins: Pins, namespace: Namespace) -> Iterator[str]:
    pinned = pins.program_ids()
    with connect(namespace.path) as connection:
        links = read_links(connection)
        found = Attachments(connection, Tcx(pins), namespace.inode).read_all(links)
    for ifindex, programs in found.items():
        filters = any(
            each.mechanism is Mechanism.CLSACT and each.prog_id not in pinned for each in programs.ours
        )
        if filters or any(map(_is_stub, programs.foreign)):
            yield links[ifindex].name


def _is_stub(program: ForeignFilter) -> bool:
    return program.mechanism is Mechanism.TCX and program.name.startswith(_STUBS)
