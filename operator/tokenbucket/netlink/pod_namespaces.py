"""What is of interest inside pods' network namespaces, which is read by entering them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.filters import Filters, LinkFilters
from tokenbucket.netlink.namespaces import Namespace, inside, numbered_namespaces
from tokenbucket.netlink.queues import Root, read_roots

log = logging.getLogger(__name__)

_ENDED = {errno.ENOENT, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class PodNamespace:
    """A pod's namespace: the filters and root qdiscs of its interfaces, by index."""

    namespace: Namespace
    filters: Mapping[int, LinkFilters]
    roots: Mapping[int, Root]

    @property
    def has_ours(self) -> bool:
        """Whether anything in it is ours."""
        return any(each.ours for each in self.filters.values()) or any(
            root.ours for root in self.roots.values()
        )


class PodNamespaces:
    """Those that were entered, by number, as of when they were last read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[int, PodNamespace] = {}
        self._namespaces: dict[int, Namespace] | None = None
        self._stale: set[int] = set()
        self._to_search = self._searched = False

    @property
    def known(self) -> Mapping[int, PodNamespace]:
        """Those entered so far, but for those that have ended."""
        return MappingProxyType(self._known)

    @property
    def searched(self) -> bool:
        """Whether what an agent before has left in any namespace is known too."""
        return self._searched

    def enter(self, nsid: int) -> PodNamespace | None:
        """The namespace of this number, read unless it is known; ``None`` where no path leads there.

        Raises KernelError, EPERM without the right to enter.
        """
        if nsid not in self._known or nsid in self._stale:
            self._read(nsid)
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
        """The next refresh looks, unless one has, for what an agent before has left in any namespace."""
        self._to_search = not self._searched

    def refresh(self) -> None:
        """Reads again what is known and stale. Raises KernelError."""
        for nsid in self._stale & self._known.keys():
            self._read(nsid)
        self._stale.clear()
        if self._to_search:
            self._search()
            self._to_search, self._searched = False, True

    def _search(self) -> None:
        for nsid in self._numbered().keys() - self._known.keys():
            try:
                found = self.enter(nsid)
            except KernelError as error:
                if error.errno == errno.EPERM:  # then no agent has been there
                    return
                log.warning("namespace not searched", extra={"nsid": nsid, "error": str(error)})
                continue
            if found and not found.has_ours:
                del self._known[nsid]

    def _numbered(self) -> Mapping[int, Namespace]:
        if self._namespaces is None:
            self._namespaces = numbered_namespaces(self._connection)
        return self._namespaces

    def _read(self, nsid: int) -> None:
        self._known.pop(nsid, None)
        namespace = self._numbered().get(nsid)
        if namespace is None:
            return
        try:
            self._known[nsid] = read_pod_namespace(namespace)
        except KernelError as error:
            if error.errno not in _ENDED:
                raise
        self._stale.discard(nsid)


def read_pod_namespace(namespace: Namespace) -> PodNamespace:
    """Enters a namespace and looks round. Raises KernelError."""
    with inside(namespace) as connection:
        return PodNamespace(namespace, Filters(connection).read_all(), read_roots(connection))
