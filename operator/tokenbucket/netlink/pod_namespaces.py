"""What is of interest inside pods' network namespaces, which is read by entering them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from tokenbucket.core.planning.hook import Hook
from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.filters import Filters, LinkFilters
from tokenbucket.netlink.namespaces import Namespace, inside, numbered_namespaces
from tokenbucket.netlink.qdiscs import INGRESS, kinds_at_clsact
from tokenbucket.netlink.queues import Root, read_roots

log = logging.getLogger(__name__)

_ENDED = {errno.ENOENT, errno.EINVAL}
_SEARCHED = 64
"""Interfaces of a namespace that are searched for what is ours though they do not lead to the node: they did
when it was put there. A pod may have made any number later."""
_TRIES = 3
"""So often a namespace is looked into in vain before nothing waits for it any more."""


@dataclass(frozen=True, slots=True)
class PodNamespace:
    """A pod's namespace: by index filters, root qdiscs and what is in clsact's place, of those interfaces
    that lead to the node.

    The pod may have made any number of others.
    """

    namespace: Namespace
    filters: Mapping[int, LinkFilters]
    roots: Mapping[int, Root]
    at_clsact: Mapping[int, str]

    def in_the_way(self, ifindex: int) -> str:
        """What keeps a filter of ours from what this interface sends; empty where nothing is known to."""
        if self.at_clsact.get(ifindex) == INGRESS:
            return "an ingress qdisc is in the place of clsact"
        foreign = self.filters.get(ifindex, LinkFilters()).foreign
        there = next((each for each in foreign if each.hook is Hook.EGRESS and each.in_the_way), None)
        return f"a foreign {there} is in the way" if there else ""

    @property
    def with_ours(self) -> set[int]:
        """Interfaces that have something of ours."""
        filters = {ifindex for ifindex, found in self.filters.items() if found.ours}
        return filters | {ifindex for ifindex, root in self.roots.items() if root.ours}


class PodNamespaces:
    """Those that were entered, by number, as of when they were last read."""

    def __init__(self, connection: Connection, ends: Callable[[int], Collection[int]]) -> None:
        """``ends`` gives the indexes of a namespace's interfaces whose other ends are on the node."""
        self._connection = connection
        self._ends = ends
        self._known: dict[int, PodNamespace] = {}
        self._namespaces: dict[int, Namespace] | None = None
        self._stale: set[int] = set()
        self._to_search = False
        self._unsearched: dict[int, int] | None = None
        """Where the search has failed, and how often; ``None`` before the first."""
        self._unreadable: set[int] = set()
        """Known ones that could not be read the last time."""

    @property
    def known(self) -> Mapping[int, PodNamespace]:
        """Those entered so far, but for those that have ended."""
        return MappingProxyType(self._known)

    @property
    def searched(self) -> bool:
        """Whether what an agent before has left in any namespace is known too, as far as it can be."""
        return self._unsearched is not None and all(tries >= _TRIES for tries in self._unsearched.values())

    def enter(self, nsid: int) -> PodNamespace | None:
        """The namespace of this number, read unless it is known; ``None`` where no path leads there.

        Raises KernelError, EPERM without the right to enter; what was known is still known then, and stale.
        """
        if nsid not in self._known or nsid in self._stale:
            self._read_known(nsid)
        return self._known.get(nsid)

    def note(self, nsid: int) -> None:
        """Something has changed inside."""
        self._stale.add(nsid)

    def forget(self, nsid: int) -> None:
        """A number is another's, or nobody's."""
        self._known.pop(nsid, None)
        self._namespaces = None

    def note_all(self) -> None:
        """Anything may have changed."""
        self._stale.update(self._known)
        self._namespaces = None

    def search(self) -> None:
        """The next refresh looks for what an agent before has left in any namespace, where none has yet."""
        self._to_search = self._unsearched is None or bool(self._unsearched)

    def refresh(self) -> None:
        """Reads again what is known and stale. One that cannot be read is as it was, and still stale.

        Raises KernelError when nobody can tell which there are.
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
                if error.errno == errno.EPERM:  # then no agent has been there
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
        found = _look_into(namespace, ifindexes, others)
        if namespace and not found:
            # Or the process has ended by whose path it was known, and others have not.
            self._namespaces = None
            found = _look_into(self._numbered().get(nsid), ifindexes, others)
        self._known.pop(nsid, None)
        if found:
            self._known[nsid] = found
        self._stale.discard(nsid)


def _look_into(namespace: Namespace | None, ifindexes: Collection[int], others: int) -> PodNamespace | None:
    """``None`` where it has ended, or the path to it."""
    try:
        return read_pod_namespace(namespace, ifindexes, others) if namespace else None
    except KernelError as error:
        if error.errno not in _ENDED:
            raise
        return None


def read_pod_namespace(namespace: Namespace, ifindexes: Collection[int], others: int = 0) -> PodNamespace:
    """Enters a namespace and looks at those interfaces, and at so many others, the oldest first. Raises
    KernelError.
    """
    with inside(namespace) as connection:
        there = kinds_at_clsact(connection)
        ifindexes = {*ifindexes, *islice(there, others)}
        kinds = {ifindex: kind for ifindex, kind in there.items() if ifindex in ifindexes}
        filters = {each: Filters(connection).read(each, kind) for each, kind in kinds.items()}
        roots = read_roots(connection)
    return PodNamespace(
        namespace,
        {ifindex: found for ifindex, found in filters.items() if found != LinkFilters()},
        {ifindex: root for ifindex, root in roots.items() if ifindex in ifindexes},
        kinds,
    )
