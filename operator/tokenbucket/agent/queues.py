"""Tokenbucket's queues: adding and removing the fq root qdisc of interfaces."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenbucket.core.planning.attachment import Interface
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.fq import add_fq, remove_fq
from tokenbucket.netlink.ifb import delete_ifb, ensure_ifb
from tokenbucket.node.view import View
from tokenbucket.pacing import REPAIRS, Repairs

log = logging.getLogger(__name__)

QUEUE_PACKETS = 1 << 16
"""Packets that a queue holds: limits queue at most 16 MiB, in packets of at least 256 bytes. This does not
bound bytes, because a GSO packet counts as one packet: the longest delay bounds bytes."""


class Removed(NamedTuple):
    """Number of queues that are gone, that still hold packets, and whose removal failed."""

    gone: int
    holding: int
    failed: int


@dataclass(slots=True)
class Queues:
    """Adds and removes queues, and remembers which ones it added."""

    add_fq: Callable[[Connection, int, int], None] = add_fq
    remove_fq: Callable[[Connection, int], bool] = remove_fq
    _added: set[Interface] = field(default_factory=set)
    """Interfaces to which a queue was added, and from which the agent did not remove it."""
    _repairs: Repairs = field(default_factory=Repairs)

    def resync(self, view: View) -> None:
        """Set the added queues to the observed ones."""
        self._added = {
            Interface(ifindex, namespace)
            for namespace, _, roots in view.all_namespaces()
            for ifindex, root in roots.items()
            if root.ours
        }

    def add(self, view: View, interface: Interface) -> str:
        """Add a queue, and return why that failed; an empty string if it succeeded."""
        name = view.name_of(interface)
        if interface in self._added and not self._repairs.allow(interface, time.monotonic()):
            return f"{name}: tokenbucket's fq was removed more than {REPAIRS} times in a minute"
        try:
            with view.writable(interface) as connection:
                if interface.is_ifb:
                    ensure_ifb(connection, interface.ifindex)
                self.add_fq(connection, interface.ifindex, QUEUE_PACKETS)
        except (UnsupportedError, KernelError) as error:
            return str(error)
        self._added.add(interface)
        log.info("queue added", extra={"interface": name})
        return ""

    def remove(self, view: View, interfaces: Iterable[Interface]) -> Removed:
        """Remove each queue once it is empty. A queue that holds packets is not a failure: the queue of a pod
        that paces its traffic holds packets most of the time.
        """
        gone = holding = failed = 0
        for interface in interfaces:
            name = view.name_of(interface)
            try:
                with view.writable(interface) as connection:
                    is_gone = self.remove_fq(connection, interface.ifindex)
                    if is_gone and interface.is_ifb:
                        delete_ifb(connection, interface.ifindex)
            except KernelError as error:
                log.warning("queue not removed", extra={"interface": name, "error": str(error)})
                view.invalidate_all()
                failed += 1
                continue
            gone += is_gone
            holding += not is_gone
            if is_gone:
                self._added.discard(interface)
                log.info("queue removed", extra={"interface": name})
        return Removed(gone, holding, failed)
