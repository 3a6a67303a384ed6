"""The parts of a view that events make stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tokenbucket.netlink import uapi
from tokenbucket.netlink.events import ADDRESSES, NSIDS, QDISCS, TRAFFIC_CONTROL, Event, EventKind
from tokenbucket.netlink.links import Link


@dataclass(slots=True)
class Stale:
    """The parts that the next refresh reads again."""

    everything: bool = True
    links: set[int] = field(default_factory=set)
    """Indexes of interfaces of the node's namespace."""
    namespaces: set[int | None] = field(default_factory=set)
    """Numbers of the namespaces whose addresses are stale; ``None`` is the node's namespace."""
    filters: set[int] = field(default_factory=set)
    """Indexes of the interfaces whose filters are stale."""
    roots: bool = False

    def mark(self, event: Event, links: Mapping[int, Link]) -> None:
        """Mark the parts that an event makes stale. ``links`` are those of the view, by index."""
        if event.kind is EventKind.OVERFLOW:
            self.everything = True
        elif event.kind in ADDRESSES:
            self.namespaces.add(event.nsid)
        elif event.kind in NSIDS:
            self.namespaces.add(event.nsid)
            self.links.update(_leading_to(links, event.nsid))
        elif event.kind in TRAFFIC_CONTROL:
            if event.nsid is None:
                self.filters.add(event.ifindex)
                self.roots |= event.kind in QDISCS and event.parent == uapi.TC_H_ROOT
        else:
            self._mark_link(event, links)

    def _mark_link(self, event: Event, links: Mapping[int, Link]) -> None:
        if event.kind is EventKind.DEL_LINK:
            # The interface may have moved to another namespace, which causes no event for its other end.
            self.links.update(_leading_to(links, event.nsid, event.ifindex))
        if event.nsid is not None:
            return
        self.links.add(event.ifindex)
        if event.kind is EventKind.DEL_LINK or event.ifindex not in links:
            self.filters.add(event.ifindex)


def _leading_to(
    links: Mapping[int, Link], nsid: int | None, peer_ifindex: int | None = None
) -> Iterable[int]:
    return [
        link.ifindex
        for link in links.values()
        if link.nsid == nsid and peer_ifindex in {None, link.peer_ifindex}
    ]
