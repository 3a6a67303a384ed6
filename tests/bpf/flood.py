"""Two CPUs, as far as there are any, that send as much as they can into one bucket."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.bpf.bucket_machine import Machine, context
from tests.bpf.program_run import run_program
from tests.bpf.test_peers import FULL, A, B, frame
from tokenbucket.bpf.slots import monotonic_ns

_AT_ONCE = 16


@contextmanager
def flood(machine: Machine, sizes: tuple[tuple[int, int], ...] = ((FULL, 1),)) -> Iterator[None]:
    """Each from a peer of its own, for the block. ``sizes``, wire bytes and segments, come by turns."""
    ended = threading.Event()

    def send(packet: bytes) -> int:
        sent = 0
        for wire_len, segments in itertools.cycle(sizes):
            skb = context(
                monotonic_ns(), mark=machine.index, ingress_ifindex=1, wire_len=wire_len, gso_segs=segments
            )
            run_program(machine.program_fd, packet[:wire_len], skb, _AT_ONCE)
            sent += _AT_ONCE
            if ended.is_set():
                return sent
        return sent

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(send, frame(peer)) for peer in (A, B)]
        try:
            yield
        finally:
            ended.set()
        assert all(run.result() for run in runs)
