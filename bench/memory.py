"""What limiting one more pod takes of the kernel's memory, beside TBF, HTB and police.

Two hundred interfaces get what a limit needs, and the kernel is asked what it holds. Maps are made once, for
all slots and peers that a node may use, and are counted apart. Needs a kernel with fq and police.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lab
from figures import Figure, print_table
from run import machine

from tests.netns.lab import batch
from tokenbucket import layout
from tokenbucket.agent.queues import QUEUE_PACKETS
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import DEFAULT_PEERS, DEFAULT_SLOTS, MAPS, PEERS, Pins, opened
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import possible_cpus
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.fq import add_fq
from tokenbucket.netlink.links import read_links

INTERFACES = 200
ROUNDS = 5
CLSACT, ROOT = "qdisc del dev {0} clsact", "qdisc del dev {0} root"
SETTLE_S = 1.0
SHARED_BYTES = sum(ctypes.sizeof(kind) for kind in (layout.Config, layout.Meters, layout.Owner))
PER_CPU_BYTES = ctypes.sizeof(layout.Stats)
PEER_BYTES = ctypes.sizeof(layout.PeerKey) + ctypes.sizeof(layout.Peer)
_COUNTED = ("Slab:", "Percpu:", "VmallocUsed:", "PageTables:", "KernelStack:")


def kernel_bytes() -> int:
    """Return the memory of the kernel, without caches of file contents."""
    time.sleep(SETTLE_S)
    Path("/proc/sys/vm/drop_caches").write_text("2")
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0] in _COUNTED)


def per_interface(add: Callable[[], None], remove: str) -> list[float]:
    """Measure bytes per interface, in some rounds. ``remove`` is a command of tc for one."""
    found = []
    for _ in range(ROUNDS):
        before = kernel_bytes()
        add()
        found.append((kernel_bytes() - before) / INTERFACES)
        each(remove)()
    return found


def each(command: str) -> Callable[[], None]:
    """Return a command of tc for every interface."""
    return lambda: batch("tc", (command.format(f"v{number}") for number in range(INTERFACES)))


def map_bytes(pins: Pins, name: str) -> int:
    """Of a whole map, as the kernel counts it: with what it needs to find an element."""
    with opened(pins.maps / name) as fd:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    (found,) = re.findall(r"^memlock:\s+(\d+)", text, re.MULTILINE)
    return int(found)


def print_maps(pins: Pins) -> None:
    """Print the memory of the maps, once per node."""
    slots, peers = sum(map_bytes(pins, name) for name in MAPS), map_bytes(pins, PEERS)
    print_table(
        "Kernel memory for the maps, once",
        (
            Figure(f"{DEFAULT_SLOTS} slots", [slots / 2**20], "MiB"),
            Figure("  each", [slots / DEFAULT_SLOTS], "bytes"),
            Figure(f"{DEFAULT_PEERS} peers", [peers / 2**20], "MiB"),
            Figure("  each", [peers / DEFAULT_PEERS], "bytes"),
        ),
    )
    print(
        f"  values of a slot: {SHARED_BYTES} + {PER_CPU_BYTES} x possible CPUs, of which there are"
        f" {possible_cpus()} here; key and value of a peer: {PEER_BYTES}"
    )


def main() -> int:
    """Print the table. Returns the exit status."""
    print(machine(), flush=True)
    with lab.node() as node:
        batch("ip", (f"link add v{number} type veth peer name p{number}" for number in range(INTERFACES)))
        batch("ip", (f"link set v{number} up" for number in range(INTERFACES)))
        build = ensure_loaded(node.pins)
        with closing(Programs(node.pins, build)) as programs, connect() as connection:
            indexes = interfaces(connection)

            def attach() -> None:
                for number, ifindex in enumerate(indexes):
                    program = programs.fds[Hook.EGRESS]
                    Filters(connection).attach(ifindex, Hook.EGRESS, program, number + 1)

            def hold() -> None:
                for ifindex in indexes:
                    add_fq(connection, ifindex, QUEUE_PACKETS)

            tbf = each("qdisc add dev {0} root tbf rate 50mbit burst 300k latency 25ms")
            print_table(
                f"Kernel memory for one more limited interface, of {INTERFACES}",
                (
                    Figure("our filter, with clsact", per_interface(attach, CLSACT), "bytes"),
                    Figure("our fq, for Delay", per_interface(hold, ROOT), "bytes"),
                    Figure("TBF", per_interface(tbf, ROOT), "bytes"),
                    Figure("HTB", per_interface(htb(), ROOT), "bytes"),
                    Figure("police, with clsact", per_interface(police(), CLSACT), "bytes"),
                ),
            )
        print_maps(node.pins)
    return 0


def htb() -> Callable[[], None]:
    """Return a root and a class."""
    return both(
        each("qdisc add dev {0} root handle 1: htb default 1"),
        each("class add dev {0} parent 1: classid 1:1 htb rate 50mbit burst 300k quantum 200000"),
    )


def police() -> Callable[[], None]:
    """Return a filter for everything, and its action."""
    action = "police rate 50mbit burst 300k conform-exceed drop/pass"
    return both(
        each("qdisc add dev {0} clsact"),
        each(f"filter add dev {{0}} egress matchall action {action}"),
    )


def both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """Return one after the other."""

    def add() -> None:
        first()
        second()

    return add


def interfaces(connection: Connection) -> list[int]:
    """Indexes of the interfaces, in order of their number."""
    names = {link.name: link.ifindex for link in read_links(connection).values()}
    return [names[f"v{number}"] for number in range(INTERFACES)]


if __name__ == "__main__":
    sys.exit(main())
