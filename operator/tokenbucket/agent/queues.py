"""Where packets can wait for their departure time, and where they cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenbucket.core.desired import Reason, Shortfall
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.links import Link
from tokenbucket.netlink.queues import add_fq, has_fq
from tokenbucket.netlink.view import View

log = logging.getLogger(__name__)

QUEUE_PACKETS = 1 << 16
"""What a queue may hold: 16 MiB, which the bucket lets wait at most, in the smallest packets that wait."""
_NO_FQ = (Reason.NO_FQ, "the node's kernel has no fq (sch_fq) to hold packets; Drop is in force")


@dataclass(slots=True)
class Queues:
    """Our queues on the interfaces of this node."""

    available: bool
    """Whether the kernel has them at all."""
    _refused: dict[int, Shortfall] = field(default_factory=dict)

    @classmethod
    def probed(cls, view: View) -> Queues:
        """Asks the kernel. Raises KernelError."""
        return cls(has_fq(view.connection))

    def forget(self) -> None:
        """What was refused may be possible now."""
        self._refused = {}

    def add(self, view: View, ifindexes: Iterable[int]) -> bool:
        """Adds a queue to each interface. Returns False where one cannot be had, which is remembered: a plan
        that relies on it would delay packets that nothing holds.
        """
        added = True
        for ifindex in ifindexes:
            view.invalidate_roots()
            try:
                add_fq(view.connection, ifindex, QUEUE_PACKETS)
                log.info("queue added", extra={"interface": _name(view, ifindex)})
            except (UnsupportedError, KernelError) as error:
                self._refused[ifindex] = (Reason.NO_FQ, f"{error}; Drop is in force")
                added = False
        return added

    def why_not(self, view: View, links: Iterable[Link]) -> Shortfall | None:
        """Why packets cannot wait on one of these interfaces; ``None`` when they can on all."""
        for link in links:
            root = view.roots.get(link.ifindex)
            if root and not root.ours:
                return Reason.FOREIGN_QDISC, f"{link.name} has a foreign {root}; Drop is in force"
            if link.ifindex in self._refused:
                return self._refused[link.ifindex]
        return None if self.available else _NO_FQ


def _name(view: View, ifindex: int) -> str:
    link = view.links.get(ifindex)
    return link.name if link else f"interface {ifindex}"
