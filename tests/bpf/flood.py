"""Send from two CPUs, if the machine has two, into one bucket at the same times of the test's clock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.bpf.bucket_machine import Machine, context
from tests.bpf.program_run import run_program
from tests.bpf.test_peers import A, Address, B, frame

CLOCKS_DIFFER_NS = 1000
"""The largest difference: the two CPUs read their clocks at slightly different times."""
AT_ONCE = 500
"""Packets for each CPU and time. Sending them takes longer than the CPUs need to start together."""


def flood(machine: Machine, times_ns: range, sizes: tuple[tuple[int, int], ...]) -> None:
    """Send from one peer per CPU. ``sizes``, wire bytes and segments, alternate."""
    together = Barrier(2)

    def send(peer: Address, place: int) -> None:
        packet = frame(peer)
        for turn, now_ns in enumerate(times_ns):
            wire_len, segments = sizes[(turn + place) % len(sizes)]
            skb = context(
                now_ns + place * CLOCKS_DIFFER_NS * (turn % 2),
                mark=machine.index,
                ingress_ifindex=1,
                wire_len=wire_len,
                gso_segs=segments,
                gso_size=1400 * (segments > 1),
            )
            together.wait()
            run_program(machine.program_fd, packet[:wire_len], skb, AT_ONCE)

    with ThreadPoolExecutor(2) as pool:
        for run in [pool.submit(send, peer, place) for place, peer in enumerate((A, B))]:
            run.result()
