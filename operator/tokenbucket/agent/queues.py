"""Where packets can wait for their departure time, and where they cannot."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenbucket.agent.repairs import ALLOWED, Repairs
from tokenbucket.core.planning.hook import Interface
from tokenbucket.core.planning.reasons import Degradation, Reason
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.queues import Root, add_fq, has_fq, remove_fq
from tokenbucket.netlink.view import View

log = logging.getLogger(__name__)

QUEUE_PACKETS = 1 << 16
"""What a queue may hold: 16 MiB, which limits let wait at most, in the smallest packets that wait. It bounds
no bytes, as a super-packet counts as one: the longest delay does."""
NO_FQ = Degradation(Reason.NO_FQ, "the node's kernel has no fq (sch_fq) to hold packets; Drop is in force")


class Removed(NamedTuple):
    """How many queues are gone, how many hold packets still, and at how many something failed."""

    gone: int
    holding: int
    failed: int


@dataclass(slots=True)
class Queues:
    """Our queues on the interfaces of this node."""

    available: bool
    """Whether the kernel has them at all."""
    _refused: dict[Interface, Degradation] = field(default_factory=dict)
    _there: set[Interface] = field(default_factory=set)
    """Where one was added, and not removed by us."""
    _repairs: Repairs = field(default_factory=Repairs)

    @classmethod
    def probed(cls, view: View) -> Queues:
        """Asks the kernel. Raises KernelError."""
        return cls(has_fq(view.connection))

    def forget(self, view: View) -> None:
        """What was refused may be possible now. Raises KernelError."""
        self._refused = {}
        self._there = {
            Interface(ifindex, namespace)
            for namespace, _, roots in view.everywhere()
            for ifindex, root in roots.items()
            if root.ours
        }
        self.available = self.available or has_fq(view.connection)

    def add(self, view: View, interfaces: Iterable[Interface]) -> bool:
        """Adds a queue to each interface. Returns False where one cannot be had, which is remembered: a plan
        that relies on it would delay packets that nothing holds.
        """
        added = True
        for interface in interfaces:
            if why_not := self._add(view, interface):
                self.refuse(interface, Degradation(Reason.NO_FQ, f"{why_not}; Drop is in force"))
                added = False
        return added

    def _add(self, view: View, interface: Interface) -> str:
        """Returns why there is none."""
        name = view.name_of(interface)
        if interface in self._there and not self._repairs.allow(interface, time.monotonic()):
            return f"{name}: our fq was removed more than {ALLOWED} times in a minute"
        try:
            with view.changing(interface) as connection:
                add_fq(connection, interface.ifindex, QUEUE_PACKETS)
        except (UnsupportedError, KernelError) as error:
            return str(error)
        self._there.add(interface)
        log.info("queue added", extra={"interface": name})
        return ""

    def refuse(self, interface: Interface, why: Degradation) -> None:
        """Packets are not to wait there, until what was refused is forgotten."""
        self._refused[interface] = why

    def remove(self, view: View, interfaces: Iterable[Interface]) -> Removed:
        """Removes the queue of each interface once it is empty. One that holds packets is no failure: those
        of a pod that paces what it sends may do so at nearly every look.
        """
        gone = holding = failed = 0
        for interface in interfaces:
            try:
                with view.changing(interface) as connection:
                    is_gone = remove_fq(connection, interface.ifindex)
            except KernelError as error:
                log.warning(
                    "queue not removed", extra={"interface": view.name_of(interface), "error": str(error)}
                )
                view.invalidate_all()
                failed += 1
                continue
            gone += is_gone
            holding += not is_gone
            if is_gone:
                self._there.discard(interface)
                log.info("queue removed", extra={"interface": view.name_of(interface)})
        return Removed(gone, holding, failed)

    def why_not(
        self, view: View, interfaces: Iterable[Interface], roots: Mapping[int, Root]
    ) -> Degradation | None:
        """Why packets cannot wait on one of these interfaces of a namespace with these root qdiscs;
        ``None`` when they can on all.
        """
        for interface in interfaces:
            root = roots.get(interface.ifindex)
            if root and not root.ours:
                message = f"{view.name_of(interface)} has a foreign {root}; Drop is in force"
                return Degradation(Reason.FOREIGN_QDISC, message)
            if interface in self._refused:
                return self._refused[interface]
        return None if self.available else NO_FQ
