"""Filters and queues inside pods' network namespaces, which are read by entering the namespaces."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import IFB, Hook, Interface
from tokenbucket.errors import KernelError
from tokenbucket.netlink.clsact import INGRESS, kinds_at_clsact
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.filters import LinkFilters
from tokenbucket.netlink.fq import Root, read_roots
from tokenbucket.netlink.ifb import is_ours
from tokenbucket.netlink.links import LOOPBACK, read_link, read_traffic
from tokenbucket.netlink.namespaces import Namespace, inside, numbered_namespaces
from tokenbucket.node.attachments import Attachments

log = logging.getLogger(__name__)

_ENDED = {errno.ENOENT, errno.EINVAL}
_SEARCHED = 64
"""Interfaces of a namespace that are searched although their peers are not on the node. The peers may
have been there when an earlier agent attached a filter. A pod may have added any number of interfaces."""
_TRIES = 3
"""Failed attempts after which a namespace counts as searched."""


@dataclass(frozen=True, slots=True)
class PodNamespace:
    """A pod's namespace: filters, root qdiscs and kinds at ``TC_H_CLSACT``, by index of the interface.

    Contains only interfaces whose peers are on the node. A pod may have added any number of others.
    """

    namespace: Namespace
    filters: Mapping[int, LinkFilters]
    roots: Mapping[int, Root]
    at_clsact: Mapping[int, str]
    has_ifb: bool = False
    """Whether tokenbucket's ifb device is there."""

    def in_the_way(self, ifindex: int) -> str:
        """Return the text of the qdisc or filter that excludes an egress filter, or an empty text."""
        if self.at_clsact.get(ifindex) == INGRESS:
            return "an ingress qdisc prevents clsact"
        foreign = self.filters.get(ifindex, LinkFilters()).foreign
        there = next((each for each in foreign if each.hook is Hook.EGRESS and each.in_the_way), None)
        return f"a foreign {there} has the place of tokenbucket's filter" if there else ""

    def program_at_ingress(self, ifindex: int) -> str:
        """Return the text of a foreign program at the ingress hook of an interface, or an empty text."""
        foreign = self.filters.get(ifindex, LinkFilters()).foreign
        return next((str(each) for each in foreign if each.hook is Hook.INGRESS), "")

    @property
    def with_ours(self) -> set[int]:
        """Indexes of the interfaces with a filter or queue of tokenbucket, and of its ifb device."""
        filters = {ifindex for ifindex, found in self.filters.items() if found.ours}
        queues = {ifindex for ifindex, root in self.roots.items() if root.ours}
        return filters | queues | ({IFB} if self.has_ifb else set())


class PodNamespaces:
    """The pods' namespaces that were entered, as they were last read."""

    def __init__(self, connection: Connection, tcx: Tcx, ends: Callable[[int], Collection[int]]) -> None:
        """Read by ``connection``.

        ``ends`` returns the indexes of a namespace's interfaces whose peers are on the node.
        """
        self._connection = connection
        self._tcx = tcx
        self._ends = ends
        self._known: dict[int, PodNamespace] = {}
        self._namespaces: dict[int, Namespace] | None = None
        self._stale: set[int] = set()
        self._to_search = False
        self._unsearched: dict[int, int] | None = None
        """Failed searches by namespace; ``None`` before the first search."""
        self._unreadable: set[int] = set()
        """Known namespaces that could not be read the last time."""
        self._may_enter = True

    @property
    def known(self) -> Mapping[int, PodNamespace]:
        """The namespaces that were entered and still exist, by number."""
        return MappingProxyType(self._known)

    @property
    def ifbs(self) -> frozenset[Interface]:
        """Tokenbucket's ifb devices in these namespaces."""
        inside = (known.namespace.inode for known in self._known.values() if known.has_ifb)
        return frozenset(Interface(IFB, inode) for inode in inside)

    @property
    def searched(self) -> bool:
        """Whether all namespaces were searched for filters and queues of an earlier agent."""
        return self._unsearched is not None and all(tries >= _TRIES for tries in self._unsearched.values())

    def hide_any(self, nsids: Collection[int]) -> bool:
        """Return whether any of these namespaces exists, and this agent has no right or no path to enter it.

        An earlier agent may have had both. Raises KernelError.
        """
        hidden = (nsid for nsid in nsids if nsid not in self._numbered() or not self._may_enter)
        return any(read_traffic(self._connection, nsid, LOOPBACK) is not None for nsid in hidden)

    def enter(self, nsid: int) -> PodNamespace | None:
        """Return the namespace with this number, reading it if it is unknown or stale.

        Returns ``None`` if no path leads to the namespace.

        Raises:
            KernelError: with EPERM without SYS_ADMIN. A known namespace stays known and stale.
        """
        if nsid not in self._known or nsid in self._stale:
            self._read_known(nsid)
        return self._known.get(nsid)

    def mark_stale(self, nsid: int) -> None:
        """Mark a namespace stale."""
        self._stale.add(nsid)

    def forget(self, nsid: int) -> None:
        """Forget a number: it is free, or another namespace has it."""
        self._known.pop(nsid, None)
        self._namespaces = None

    def mark_all_stale(self) -> None:
        """Mark all namespaces stale."""
        self._stale.update(self._known)
        self._namespaces = None

    def search(self) -> None:
        """Let the next refresh search the namespaces that were not searched yet."""
        self._to_search = self._unsearched is None or bool(self._unsearched)

    def refresh(self) -> None:
        """Read the stale namespaces again. A namespace that cannot be read stays as it was, and stale.

        Raises:
            KernelError: the namespaces cannot be listed.
        """
        self._stale &= self._known.keys()
        for nsid in tuple(self._stale):
            self._read_again(nsid)
        self._unreadable &= self._stale
        if self._to_search:
            self._search()
            self._to_search = False

    def _read_again(self, nsid: int) -> None:
        try:
            self._read_known(nsid)
        except KernelError as error:
            if nsid not in self._unreadable:
                log.warning("namespace not read", extra={"nsid": nsid, "error": str(error)})
            self._unreadable.add(nsid)

    def _search(self) -> None:
        before = self._unsearched
        to_search = self._numbered().keys() - self._known.keys()
        if before is not None:
            to_search &= before.keys()
        self._unsearched = {}
        for nsid in to_search:
            try:
                self._read(nsid, self._ends(nsid), _SEARCHED)
            except KernelError as error:
                if error.errno == errno.EPERM:
                    self._may_enter = False
                    return
                self._unsearched[nsid] = (before or {}).get(nsid, 0) + 1
                if self._unsearched[nsid] == 1:
                    log.warning("namespace not searched", extra={"nsid": nsid, "error": str(error)})
                continue
            if nsid in self._known and not self._known[nsid].with_ours:
                del self._known[nsid]

    def _numbered(self) -> Mapping[int, Namespace]:
        if self._namespaces is None:
            self._namespaces = numbered_namespaces(self._connection)
        return self._namespaces

    def _read_known(self, nsid: int) -> None:
        before = self._known.get(nsid)
        self._read(nsid, {*self._ends(nsid), *(before.with_ours if before else ())})

    def _read(self, nsid: int, ifindexes: Collection[int], others: int = 0) -> None:
        namespace = self._numbered().get(nsid)
        found = self._look_into(namespace, ifindexes, others)
        if namespace and not found:
            # The process with the cached /proc path may have ended while the namespace still exists.
            self._namespaces = None
            found = self._look_into(self._numbered().get(nsid), ifindexes, others)
        self._known.pop(nsid, None)
        if found:
            self._known[nsid] = found
        self._stale.discard(nsid)

    def _look_into(
        self, namespace: Namespace | None, ifindexes: Collection[int], others: int
    ) -> PodNamespace | None:
        """Return the namespace, or ``None`` if it has ended or its path no longer leads to it."""
        try:
            return read_pod_namespace(namespace, self._tcx, ifindexes, others) if namespace else None
        except KernelError as error:
            if error.errno not in _ENDED:
                raise
            return None


def read_pod_namespace(
    namespace: Namespace, tcx: Tcx, ifindexes: Collection[int], others: int = 0
) -> PodNamespace:
    """Enter a namespace and read these interfaces, and up to ``others`` more, the oldest first.

    Raises:
        KernelError: the namespace cannot be entered or read.
    """
    with inside(namespace) as connection:
        there = kinds_at_clsact(connection)
        ifindexes = {*ifindexes, *islice(there, others), *tcx.interfaces_in(namespace.inode), IFB}
        filters = Attachments(connection, tcx, namespace.inode).read_all(ifindexes)
        roots = read_roots(connection)
        has_ifb = is_ours(read_link(connection, IFB))
    return PodNamespace(
        namespace,
        filters,
        {ifindex: root for ifindex, root in roots.items() if ifindex in ifindexes},
        {ifindex: kind for ifindex, kind in there.items() if ifindex in ifindexes},
        has_ifb,
    )
