"""A node's kernel in memory, for agents of which there are hundreds on one machine: links, filters and slots.

It stands in for netlink and BPF alone. Each pod's address has one veth behind it; nothing ever fails, and
nothing is changed by anybody else.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

from tokenbucket.agent.executor import Executor
from tokenbucket.agent.loop import Loop
from tokenbucket.agent.observer import Observer
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.reconciler import Reconciler
from tokenbucket.agent.source import Source
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.core.planning.attachment import Hook, HookPoint, Interface, Mechanism
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.foreign import ForeignProgram
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.netlink.filters import Filter, LinkFilters
from tokenbucket.netlink.links import VETH, Link
from tokenbucket.node.location import AddressLocation, LocationKind

SLOTS = 2048
_PROGRAM = 1
Written = dict[tuple[str, int], float]


class Silence:
    """Something to poll that never has news: netlink of a node where nothing happens, or signals that never
    come.
    """

    stopping = False
    has_read_early = False

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()

    def fileno(self) -> int:
        return self._ours.fileno()

    def drain(self) -> None:
        select.select([self._ours], [], [], 0)

    def read(self) -> dict:
        return {}

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class Slots:
    """Slots, and when each generation of each policy was last written to one of them."""

    count = SLOTS
    previous_layouts = SimpleNamespace(program_ids=frozenset())

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}
        self.written: Written = {}

    def read(self) -> dict[int, Slot]:
        return dict(self._slots)

    @property
    def pod_filters(self) -> Slots:
        return self

    def namespaces(self, _: int) -> frozenset[int]:
        return frozenset()

    def resolve_slot(self, slot: int, _: int) -> int:
        return slot

    def limits_device_in_another_layout(self, _: int, __: int) -> bool:
        return False

    def write(self, index: int, slot: Slot, *, fresh: bool) -> None:
        assert fresh == (index not in self._slots)
        self._slots[index] = slot
        self.written[slot.owner.policy, slot.owner.generation] = time.monotonic()

    def free(self, index: int) -> None:
        del self._slots[index]


class Network:
    """Links and filters: what the agent knows as its view, and the filters that it attaches."""

    roots: Mapping[int, object] = {}
    addresses: Mapping[None, frozenset[object]] = {}
    searched = True
    ifbs: frozenset[Interface] = frozenset()

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.filters: dict[int, LinkFilters] = {}
        self._of: dict[object, Link] = {}

    def refresh(self) -> None:
        pass

    def invalidate_all(self) -> None:
        pass

    def search(self) -> None:
        pass

    @property
    def pod_namespaces(self) -> Network:
        return self

    @property
    def named(self) -> Network:
        return self

    def holders(self, _: object) -> frozenset[int]:
        return frozenset()

    def number(self, _: str) -> None:
        return None

    def is_gone(self, _: str) -> bool:
        return False

    @contextlib.contextmanager
    def attachments(self, _: Interface) -> Iterator[Network]:
        yield self

    def all_namespaces(self) -> Iterator[tuple[int, Mapping[int, LinkFilters], Mapping[int, object]]]:
        yield 0, self.filters, self.roots

    def filters_at(self, interface: Interface) -> LinkFilters:
        return self.filters.get(interface.ifindex, LinkFilters())

    def name_of(self, interface: Interface) -> str:
        return self.links[interface.ifindex].name

    def interfaces_of(self, *addresses: object) -> AddressLocation:
        links = {self._link(address) for address in addresses}
        namespaces = tuple(link.ifindex for link in links)
        return AddressLocation(LocationKind.NAMESPACE, tuple(links), nsids=namespaces)

    def namespace_behind(self, _: Interface) -> None:
        """No placement is kept: a pod's address never moves."""

    def _link(self, address: object) -> Link:
        if address not in self._of:
            index = len(self._of) + 2
            self._of[address] = self.links[index] = Link(index, f"veth{index}", VETH, None, None)
        return self._of[address]

    def attach(self, point: HookPoint, program: int, slot: int, *, redirects: bool) -> None:
        ifindex = point.interface.ifindex
        self.detach(ifindex, point.hook, point.mechanism)
        ours = Filter(ifindex, point.hook, slot, program, point.mechanism, redirects=redirects)
        self.filters[ifindex] = LinkFilters((*self.filters[ifindex].ours, ours))

    def detach(self, ifindex: int, hook: Hook, _: Mechanism) -> None:
        there = self.filters.get(ifindex, LinkFilters()).ours
        self.filters[ifindex] = LinkFilters(tuple(each for each in there if each.hook is not hook))


class _Programs:
    ids = fds = dict.fromkeys(Hook, _PROGRAM)


class _Locks:
    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        yield


class _Nothing:
    """The stubs, the addresses of the node, and the links: there are none."""

    def remove(self, _: int) -> None:
        pass

    def write(self, _: object) -> None:
        pass

    def remove_stale(self) -> None:
        pass


class _Verifier:
    """Finds that every limit runs: nothing is attached by others."""

    not_running: frozenset[SlotKey] = frozenset()
    suspects: frozenset[SlotKey] = frozenset()
    bypassed_directions: frozenset[object] = frozenset()
    in_use: Mapping[int, object] = MappingProxyType({})

    def check(self, *_: object, **__: object) -> bool:
        return False

    def forget(self, _: object) -> None:
        pass

    def foreign_programs(self, _: object) -> list[ForeignProgram]:
        return []

    def deviations(self, _: object) -> list[Deviation]:
        return []


class _Reconciler(Reconciler):
    def check_periodically(self) -> None:
        """Probe nothing: this kernel has no fq, and refuses nothing."""


def loop(source: Source, slots: Slots, stats: ReconcileStats) -> Loop:
    """Return the agent's loop and reconciler, on a kernel of its own."""
    network = Network()
    executor = Executor(network, slots, _Programs(), _Nothing(), _Nothing())
    observer = Observer(network, slots, _Programs())
    reconciler = _Reconciler(observer, executor, _Locks(), Capabilities(fq=False), _Verifier())
    # Settled: there are no pins of earlier builds to be removed.
    pins = SimpleNamespace(folder=Path())
    others = (Silence(), Silence(), None, set(), reconciler, _Nothing(), pins, "")
    return Loop(source, *others, stats, _settled=True)
