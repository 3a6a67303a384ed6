"""The interfaces of pods that have no end on the node, such as those of macvlan.

They are read from outside, by the number of the namespace. A pod whose addresses all belong to ends of veth
pairs is not read at the start of the agent: reading hundreds of namespaces would delay the first limits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from itertools import islice

from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.links import Link, read_links_of

log = logging.getLogger(__name__)

MOST = 64
"""Interfaces of one pod that are limited. A pod that may create interfaces can create any number."""
_LOOPBACK = 1
"""The kernel gives this index to the loopback interface of every namespace."""

Ifindexes = Callable[[int], AbstractSet[int]]
"""Returns indexes of interfaces of the namespace with a number."""


class PodLinks:
    """Interfaces of pods without an end on the node, by the number of the namespace."""

    def __init__(self, connection: Connection, ends: Ifindexes, in_use: Ifindexes) -> None:
        """Read by ``connection``.

        ``ends`` returns the interfaces whose other ends are on the node. ``in_use`` returns interfaces that
        have an address or a limit.
        """
        self._connection = connection
        self._ends = ends
        self._in_use = in_use
        self._links: dict[int, tuple[Link, ...]] = {}
        self._two_ended: dict[int, tuple[Link, ...]] = {}
        self._changed: dict[int, set[int]] = {}
        """Interfaces that events were about since their namespace was read."""
        self._stale: set[int] = set()
        self._read_each = False
        """Whether each namespace is read once, whatever its addresses are."""
        self.unread: dict[int, str] = {}
        """Errors of the namespaces that could not be read."""

    def of(self, nsid: int) -> tuple[Link, ...]:
        """Return the interfaces of a namespace, at most one more than 64."""
        if self._is_due(nsid):
            self._read(nsid)
        else:
            self._stale.discard(nsid)
        return self.known(nsid)

    def known(self, nsid: int) -> tuple[Link, ...]:
        """Return the interfaces of a namespace as far as they were read."""
        return self._links.get(nsid, ())

    def with_other_ends(self, nsid: int) -> tuple[Link, ...]:
        """Return the known interfaces of a namespace whose other ends are not on the node."""
        ends = self._ends(nsid)
        return tuple(link for link in self._two_ended.get(nsid, ()) if link.ifindex not in ends)

    def mark_changed(self, nsid: int, ifindex: int) -> None:
        """Record that an interface of a namespace was created, changed or deleted."""
        self._changed.setdefault(nsid, set()).add(ifindex)
        self._stale.add(nsid)

    def forget(self, nsid: int) -> None:
        """Forget a number: it is free, or another namespace has it."""
        for known in (self._links, self._two_ended, self._changed, self.unread):
            known.pop(nsid, None)

    def mark_all_stale(self, *, lost_events: bool) -> None:
        """Mark all namespaces stale. With ``lost_events``, interfaces may exist that no event was about."""
        self._read_each = True
        if lost_events:
            self._links.clear()
        self._stale.update(self._links)

    def _is_due(self, nsid: int) -> bool:
        if nsid in self._links and nsid not in self._stale:
            return False
        if self._links.get(nsid) or (self._read_each and nsid not in self._links):
            return True
        ends = self._ends(nsid)
        others = (self._in_use(nsid) | self._changed.get(nsid, set())) - ends - {_LOOPBACK}
        return bool(others) or not ends

    def _read(self, nsid: int) -> None:
        try:
            found = read_links_of(self._connection, nsid)
        except KernelError as error:
            if nsid not in self.unread:
                log.warning("interfaces not read", extra={"nsid": nsid, "error": str(error)})
            self.unread[nsid] = str(error)
            return
        self._links[nsid] = tuple(islice((link for link in found if link.leads_elsewhere), MOST + 1))
        self._two_ended[nsid] = tuple(islice((link for link in found if link.has_other_end), MOST + 1))
        self._changed.pop(nsid, None)
        self.unread.pop(nsid, None)
        self._stale.discard(nsid)
