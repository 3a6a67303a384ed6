"""tokenbucket's tc filter: attach, remove and read it.

Priority, handle and name together identify the filter. Any other filter on a hook is foreign, and tokenbucket
never changes it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenbucket.core.planning.attachment import Hook, Mechanism
from tokenbucket.errors import IgnoreErrno, UnsupportedError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.clsact import INGRESS, delete_clsact, ensure_clsact, kinds_at_clsact
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import TC, Message, attributes, text, u32
from tokenbucket.netlink.mirred import redirect_target

PRIORITY = 1
HANDLE = 0x7462
HANDLES = (HANDLE, HANDLE + 1)
"""A filter moves before a newer one of its priority by a new filter, which needs another handle."""
NAME = "tokenbucket"
PARENTS = {
    Hook.INGRESS: uapi.TC_H_CLSACT & 0xFFFF0000 | uapi.TC_H_MIN_INGRESS,
    Hook.EGRESS: uapi.TC_H_CLSACT & 0xFFFF0000 | uapi.TC_H_MIN_EGRESS,
}
MAX_SLOT = 0xFFFF
"""The program gets the 16 bits of the minor number of the class id."""

_CLASS_BASE = 0x10000
_BPF = "bpf"


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter or tcx program of tokenbucket. ``prog_id`` is the program that decides on packets."""

    ifindex: int
    hook: Hook
    slot: int
    prog_id: int
    mechanism: Mechanism = Mechanism.CLSACT
    handle: int = HANDLE
    is_first: bool = True
    """Whether no program of others with the same mechanism runs before it on the hook."""
    redirects: bool = False
    """Whether it redirects packets to the ifb device."""


@dataclass(frozen=True, slots=True)
class ForeignFilter:
    """A filter, or a tcx program, of another component."""

    ifindex: int
    hook: Hook
    kind: str
    priority: int
    protocol: int
    handle: int
    name: str
    prog_id: int | None
    mechanism: Mechanism = Mechanism.CLSACT
    link_id: int = 0
    """The link that holds a tcx program, 0 if none does."""
    runs_first: bool = False
    """Whether it runs before all of tokenbucket's on the same hook."""
    redirects_to: int = 0
    """The interface to which it redirects packets; 0 if there is none."""

    @property
    def in_the_way(self) -> bool:
        """Whether the filter excludes tokenbucket's filter.

        All filters of a priority have the same kind and protocol, and different handles.
        """
        if self.priority != PRIORITY or self.mechanism is not Mechanism.CLSACT:
            return False
        return self.kind != _BPF or self.protocol != uapi.ETH_P_ALL or self.handle in HANDLES

    def __str__(self) -> str:
        named = f" {self.name!r}" if self.name else ""
        if self.mechanism is Mechanism.TCX:
            return f"tcx program{named} with id {self.prog_id}"
        return f"{self.kind} filter{named} at priority {self.priority}, handle {self.handle:#x}"


@dataclass(frozen=True, slots=True)
class LinkFilters:
    """The programs on both hooks of one interface, in the order in which they run."""

    ours: tuple[Filter, ...] = ()
    foreign: tuple[ForeignFilter, ...] = ()


class Filters:
    """Filters of the interfaces in the namespace of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def attach(self, ifindex: int, hook: Hook, prog_fd: int, slot: int) -> None:
        """Attach tokenbucket's filter to a hook, or replace it without a gap.

        If newer filters of its priority run before it, the new filter is the first again.

        ``slot`` is between 0 and :data:`MAX_SLOT`.

        Raises:
            UnsupportedError: a foreign filter or an ingress qdisc excludes the filter. Nothing is changed,
                except that clsact may have been added.
            KernelError: the kernel rejects the request.
        """
        if not 0 <= slot <= MAX_SLOT:
            raise ValueError(f"slot {slot}: must be from 0 to {MAX_SLOT}")
        there = self._make_room(ifindex, hook)
        first = next((ours.handle for ours in there if ours.is_first), None)
        handle = first or next(iter({*HANDLES} - {ours.handle for ours in there}), HANDLE)
        self._connection.tc(
            "replace-filter",
            _BPF,
            ifindex,
            _subject(ifindex, hook),
            **_identity(hook, handle),
            fd=prog_fd,
            name=NAME,
            classid=_CLASS_BASE + slot,
            direct_action=True,
        )
        for ours in there:
            if ours.handle != handle:
                self._delete(ifindex, hook, ours.handle)

    def detach(self, ifindex: int, hook: Hook) -> None:
        """Remove tokenbucket's filter, if it exists. clsact stays. Raises KernelError."""
        for ours in self.read(ifindex).ours:
            if ours.hook is hook:
                self._delete(ifindex, hook, ours.handle)

    def remove_empty_clsact(self, ifindex: int) -> None:
        """Remove clsact if neither hook has a filter.

        Call this method only for uninstallation: clsact does not record which program added it.

        Raises:
            KernelError: the kernel rejects the request.
        """
        if not any(self._dump(ifindex, each) for each in Hook):
            delete_clsact(self._connection, ifindex)

    def read(self, ifindex: int, at_clsact: str | None = None) -> LinkFilters:
        """Return the filters on both hooks, or none if the interface does not exist.

        ``at_clsact`` is the kind of the qdisc at ``TC_H_CLSACT``, if the caller knows it.

        Raises:
            KernelError: the kernel rejects the request.
        """
        ingress = self._hook_filters(ifindex, Hook.INGRESS)
        if at_clsact == INGRESS:
            return ingress
        egress = self._hook_filters(ifindex, Hook.EGRESS)
        if not at_clsact and _same(ingress, egress) and self._has_ingress_qdisc(ifindex):
            return ingress  # the ingress qdisc answers with its only hook for both
        return LinkFilters(ingress.ours + egress.ours, ingress.foreign + egress.foreign)

    def read_all(self) -> dict[int, LinkFilters]:
        """Return the filters of interfaces with clsact or an ingress qdisc, by index. Raises KernelError."""
        kinds = kinds_at_clsact(self._connection)
        return {ifindex: self.read(ifindex, kind) for ifindex, kind in kinds.items()}

    def _has_ingress_qdisc(self, ifindex: int) -> bool:
        return kinds_at_clsact(self._connection).get(ifindex) == INGRESS

    def _hook_filters(self, ifindex: int, hook: Hook) -> LinkFilters:
        parsed = (_parse(ifindex, hook, message.body) for message in self._dump(ifindex, hook))
        return in_order([found for found in parsed if found])

    def _dump(self, ifindex: int, hook: Hook) -> list[Message]:
        request = TC.pack(socket.AF_UNSPEC, ifindex, 0, PARENTS[hook], 0)
        return self._connection.dump(uapi.RTM_GETTFILTER, request, f"filters of {_subject(ifindex, hook)}")

    def _delete(self, ifindex: int, hook: Hook, handle: int) -> None:
        with IgnoreErrno(errno.ENOENT, errno.ENODEV, errno.EINVAL):
            self._connection.tc(
                "del-filter", _BPF, ifindex, _subject(ifindex, hook), **_identity(hook, handle)
            )

    def _make_room(self, ifindex: int, hook: Hook) -> tuple[Filter, ...]:
        """Add clsact unless it exists, and return tokenbucket's filters of the hook."""
        there = ensure_clsact(self._connection, ifindex)
        # The ingress qdisc would accept an egress filter and run it on ingress.
        if there == INGRESS and hook is Hook.EGRESS:
            raise UnsupportedError(
                f"{_subject(ifindex, hook)}: an ingress qdisc prevents clsact; "
                "remove it, or make its owner use clsact"
            )
        found = self._hook_filters(ifindex, hook)
        for foreign in found.foreign:
            if foreign.in_the_way:
                raise UnsupportedError(
                    f"{_subject(ifindex, hook)}: a foreign {foreign} has the place of tokenbucket's filter; "
                    "make its owner use a priority above 1"
                )
        return found.ours


def _identity(hook: Hook, handle: int) -> dict[str, int]:
    return {"handle": handle, "prio": PRIORITY, "protocol": uapi.ETH_P_ALL, "parent": PARENTS[hook]}


def _subject(ifindex: int, hook: Hook) -> str:
    return f"interface {ifindex} {hook}"


def _same(ingress: LinkFilters, egress: LinkFilters) -> bool:
    """Return whether both hooks have the same filters, and at least one."""

    def content(filters: LinkFilters) -> Sequence[object]:
        ours = [(each.slot, each.prog_id) for each in filters.ours]
        return [ours, [(each.kind, each.priority, each.handle, each.prog_id) for each in filters.foreign]]

    return bool(ingress.ours or ingress.foreign) and content(ingress) == content(egress)


def in_order(found: Sequence[Filter | ForeignFilter]) -> LinkFilters:
    """Return tokenbucket's programs and those of others on one hook, given in the order of execution."""
    first = next((place for place, each in enumerate(found) if isinstance(each, Filter)), 0)
    others: set[Mechanism] = set()
    ours, foreign = [], []
    for place, each in enumerate(found):
        if isinstance(each, Filter):
            ours.append(replace(each, is_first=each.mechanism not in others))
        else:
            others.add(each.mechanism)
            foreign.append(replace(each, runs_first=place < first))
    return LinkFilters(tuple(ours), tuple(foreign))


def _parse(ifindex: int, hook: Hook, body: bytes) -> Filter | ForeignFilter | None:
    _, _, handle, _, info = TC.unpack_from(body)
    found = attributes(body, TC.size)
    chain = u32(found.get(uapi.TCA_CHAIN)) or 0
    if not handle or chain:  # the head of a list, or a filter that only another filter jumps to
        return None
    kind = text(found.get(uapi.TCA_KIND, b""))
    content = found.get(uapi.TCA_OPTIONS, b"")
    options = attributes(content) if kind == _BPF else {}
    name, priority, protocol = (
        text(options.get(uapi.TCA_BPF_NAME, b"")),
        info >> 16,
        socket.ntohs(info & 0xFFFF),
    )
    prog_id = u32(options.get(uapi.TCA_BPF_ID))
    identity = (kind, priority, protocol, name) == (_BPF, PRIORITY, uapi.ETH_P_ALL, NAME)
    if identity and handle in HANDLES:
        slot = (u32(options.get(uapi.TCA_BPF_CLASSID)) or _CLASS_BASE) - _CLASS_BASE
        return Filter(ifindex, hook, slot, prog_id or 0, handle=handle)
    foreign = ForeignFilter(ifindex, hook, kind, priority, protocol, handle, name, prog_id)
    return replace(foreign, redirects_to=redirect_target(kind, content))
