"""The programs at the hooks of interfaces, by tcx and by clsact: read, attached and detached."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial

from tokenbucket.bpf.tcx import Tcx, TcxProgram
from tokenbucket.core.planning.attachment import Hook, HookPoint, Mechanism
from tokenbucket.netlink.clsact import kinds_at_clsact
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.filters import Filter, Filters, ForeignFilter, LinkFilters, in_order

_TcxHooks = tuple[tuple[TcxProgram, ...], ...]


def is_shared(found: LinkFilters) -> bool:
    """Return whether others have a tcx program or an earlier filter there, or tokenbucket a tcx program."""
    if any(ours.mechanism is Mechanism.TCX for ours in found.ours):
        return True
    return any(foreign.mechanism is Mechanism.TCX or foreign.runs_first for foreign in found.foreign)


class Attachments:
    """The attachments in the namespace of a connection, whose inode is ``namespace``."""

    def __init__(self, connection: Connection, tcx: Tcx, namespace: int) -> None:
        self._connection = connection
        self._filters = Filters(connection)
        self._tcx = tcx
        self._namespace = namespace
        self._seen: dict[int, _TcxHooks] = {}
        """The tcx programs that were last read, by interface."""

    def attach(self, point: HookPoint, program: int, slot: int, *, redirects: bool = False) -> None:
        """Attach a slot, or replace the attachment by the same mechanism without a gap.

        ``program`` is the descriptor of the program that decides on packets. Only tcx ``redirects`` packets
        to the ifb device.

        Raises:
            UnsupportedError: a program or qdisc of others excludes a filter of clsact.
            KernelError: the kernel rejects the request.
        """
        ifindex, hook = point.interface.ifindex, point.hook
        if point.mechanism is Mechanism.CLSACT:
            self._filters.attach(ifindex, hook, program, slot)
        else:
            attach = partial(self._tcx.attach, self._namespace, ifindex, hook, slot, redirects=redirects)
            self._connection.call(attach)

    def detach(self, ifindex: int, hook: Hook, mechanism: Mechanism) -> None:
        """Remove tokenbucket's attachment by this mechanism, if there is one. Raises KernelError."""
        if mechanism is Mechanism.CLSACT:
            self._filters.detach(ifindex, hook)
        else:
            self._tcx.detach(self._namespace, ifindex, hook)

    def read(self, ifindex: int, at_clsact: str | None = None) -> LinkFilters:
        """Return the programs on both hooks of an interface; none if it does not exist.

        ``at_clsact`` is the kind of the qdisc at ``TC_H_CLSACT``, if the caller knows it.

        Raises:
            KernelError: the kernel rejects the request.
        """
        return self._merge(ifindex, self._query([ifindex])[ifindex], self._filters.read(ifindex, at_clsact))

    def read_all(self, ifindexes: Iterable[int]) -> dict[int, LinkFilters]:
        """Return the programs of these interfaces that have any. Raises KernelError."""
        self._seen.clear()
        kinds = kinds_at_clsact(self._connection)
        found = {}
        for ifindex, programs in self._query(list(ifindexes)).items():
            kind = kinds.get(ifindex)
            filters = self._filters.read(ifindex, kind) if kind else LinkFilters()
            merged = self._merge(ifindex, programs, filters)
            if merged != LinkFilters():
                found[ifindex] = merged
        return found

    def changed(self, ifindexes: Iterable[int]) -> set[int]:
        """Return the interfaces whose tcx programs are not those that were read last. Raises KernelError."""
        before = dict(self._seen)
        now = self._query(list(ifindexes))
        return {ifindex for ifindex, programs in now.items() if programs != before.get(ifindex, ((), ()))}

    def _query(self, ifindexes: Collection[int]) -> dict[int, _TcxHooks]:
        read = self._tcx.read
        if not self._tcx.is_supported:
            return dict.fromkeys(ifindexes, ((), ()))

        def query() -> dict[int, _TcxHooks]:
            return {ifindex: tuple(read(ifindex, hook) for hook in Hook) for ifindex in ifindexes}

        found = self._connection.call(query)
        self._seen.update(found)
        return found

    def _merge(self, ifindex: int, programs: _TcxHooks, filters: LinkFilters) -> LinkFilters:
        """Return all programs in the order of execution: on each hook, tcx runs before clsact."""
        if not any(programs):
            return filters
        ours: tuple[Filter, ...] = ()
        foreign: tuple[ForeignFilter, ...] = ()
        for hook, of_hook in zip(Hook, programs, strict=True):
            ahead = [each for each in filters.foreign if each.hook is hook and each.runs_first]
            mine = [each for each in filters.ours if each.hook is hook]
            after = [each for each in filters.foreign if each.hook is hook and not each.runs_first]
            tcx = [self._describe(ifindex, hook, program) for program in of_hook]
            merged = in_order([*tcx, *ahead, *mine, *after])
            ours += merged.ours
            foreign += merged.foreign
        return LinkFilters(ours, foreign)

    def _describe(self, ifindex: int, hook: Hook, program: TcxProgram) -> Filter | ForeignFilter:
        stub = self._tcx.stubs.find(program.program_id)
        if stub:
            found = Filter(ifindex, hook, stub.slot, stub.program_id, Mechanism.TCX)
            return replace(found, redirects=stub.redirects)
        name = self._tcx.names.of(program.program_id)
        foreign = ForeignFilter(ifindex, hook, "tcx", 0, 0, 0, name, program.program_id, Mechanism.TCX)
        return replace(foreign, link_id=program.link_id)
