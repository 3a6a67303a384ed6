"""What limiting one more pod takes of the kernel's memory, beside TBF and HTB.

Two hundred interfaces get what a limit needs, and the kernel is asked what it holds. Maps are made once, for
all slots that a node may use, and are counted apart. Needs a kernel with fq.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lab
from run import machine

from tokenbucket import layout
from tokenbucket.agent.queues import QUEUE_PACKETS
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import DEFAULT_SLOTS
from tokenbucket.bpf.slots import Programs
from tokenbucket.core.hook import Hook
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.links import read_links
from tokenbucket.netlink.queues import add_fq

INTERFACES = 200
ROUNDS = 5
CLSACT, ROOT = "qdisc del dev {0} clsact", "qdisc del dev {0} root"
SETTLE_S = 1.0
_COUNTED = ("Slab:", "Percpu:", "VmallocUsed:", "PageTables:", "KernelStack:")


def kernel_bytes() -> int:
    """What the kernel holds for itself, without caches of files' content."""
    time.sleep(SETTLE_S)
    Path("/proc/sys/vm/drop_caches").write_text("2")
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0] in _COUNTED)


def per_interface(node: str, add: Callable[[], None], remove: str) -> list[float]:
    """Bytes an interface, in some rounds. ``remove`` is a command of tc for one."""
    found = []
    for _ in range(ROUNDS):
        before = kernel_bytes()
        add()
        found.append((kernel_bytes() - before) / INTERFACES)
        each(node, remove)()
    return found


def each(node: str, command: str) -> Callable[[], None]:
    """A command of tc for every interface."""
    return lambda: lab.tc((command.format(f"v{number}") for number in range(INTERFACES)), node)


def slot_bytes() -> int:
    """Of one slot, in the maps."""
    processors = os.cpu_count() or 1
    shared = sum(ctypes.sizeof(kind) for kind in (layout.Config, layout.Meters, layout.Owner))
    return shared + processors * ctypes.sizeof(layout.Stats)


def main() -> int:
    """Prints the table. Returns the exit status."""
    print(machine(), flush=True)
    with lab.node("memory") as node:
        lab.ip(
            (f"link add v{number} type veth peer name p{number}" for number in range(INTERFACES)), node.name
        )
        lab.ip((f"link set v{number} up" for number in range(INTERFACES)), node.name)
        build = ensure_loaded(node.pins)
        with closing(Programs(node.pins, build)) as programs, connect(node.path) as connection:
            indexes = interfaces(connection)

            def attach() -> None:
                for number, ifindex in enumerate(indexes):
                    program = programs.fds[Hook.EGRESS]
                    Filters(connection).attach(ifindex, Hook.EGRESS, program, number + 1)

            def hold() -> None:
                for ifindex in indexes:
                    add_fq(connection, ifindex, QUEUE_PACKETS)

            tbf = "qdisc add dev {0} root tbf rate 50mbit burst 300k latency 25ms"
            lab.print_table(
                f"Kernel memory for one more limited interface, of {INTERFACES}",
                (
                    lab.Figure("our filter, with clsact", per_interface(node.name, attach, CLSACT), "bytes"),
                    lab.Figure("our fq, for Delay", per_interface(node.name, hold, ROOT), "bytes"),
                    lab.Figure("our slot, in the maps", [slot_bytes()], "bytes"),
                    lab.Figure("TBF", per_interface(node.name, each(node.name, tbf), ROOT), "bytes"),
                    lab.Figure("HTB", per_interface(node.name, htb(node.name), ROOT), "bytes"),
                ),
            )
            print(f"  maps for {DEFAULT_SLOTS} slots: {slot_bytes() * DEFAULT_SLOTS / 2**20:.1f} MiB, once")
    return 0


def htb(node: str) -> Callable[[], None]:
    """A root and a class."""
    root = each(node, "qdisc add dev {0} root handle 1: htb default 1")
    limit = each(node, "class add dev {0} parent 1: classid 1:1 htb rate 50mbit burst 300k quantum 200000")

    def add() -> None:
        root()
        limit()

    return add


def interfaces(connection: Connection) -> list[int]:
    """Indexes of the interfaces, in order of their number."""
    names = {link.name: link.ifindex for link in read_links(connection).values()}
    return [names[f"v{number}"] for number in range(INTERFACES)]


if __name__ == "__main__":
    sys.exit(main())
