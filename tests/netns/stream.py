"""Send UDP packets between pods: a numbered stream while a test runs, or packets of given sizes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.netns.agent import PATIENCE_S, wait_for_softirqs
from tests.netns.lab import Pod

_RECEIVE = """
import select, socket, sys, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
server.bind((sys.argv[1], 9))
print(time.monotonic_ns(), flush=True)
arrived = []
while server in select.select([server, sys.stdin], [], [])[0]:
    number = int.from_bytes(server.recv(2048)[:8])
    arrived.append((number, time.monotonic_ns()))
for each in arrived:
    print(*each)
"""
_RECEIVE_SIZES = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 9))
server.settimeout(240)
print('ready', flush=True)
print(*(len(server.recv(2048)) for _ in range(int(sys.argv[2]))))
"""
_SEND = """
import select, socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect((sys.argv[1], 9))
size, pause_s, sent_ns = int(sys.argv[2]), float(sys.argv[3]), []
while not select.select([sys.stdin], [], [], pause_s)[0]:
    packet = len(sent_ns).to_bytes(8).ljust(size, b'.')
    sent_ns.append(time.monotonic_ns())
    client.send(packet)
print(*sent_ns)
"""


@dataclass
class Stream:
    """Numbers and times of the packets. Complete after the block has ended."""

    sent_ns: list[int] = field(default_factory=list)
    """When each packet was sent."""
    arrived: list[tuple[int, int]] = field(default_factory=list)
    """The number of each packet, and when it was read, in ns since before the first was sent."""

    @property
    def sent(self) -> int:
        """Return the number of packets."""
        return len(self.sent_ns)


@contextmanager
def stream(source: Pod, target: Pod, size: int, pause_s: float) -> Iterator[Stream]:
    """Send numbered packets of so many payload bytes, with a pause after each, while the block runs."""
    stream = Stream()
    with _running(target, _RECEIVE, str(target.ip)) as receiver:
        assert receiver.stdout
        start_ns = int(receiver.stdout.readline())
        with _running(source, _SEND, str(target.ip), str(size), str(pause_s)) as sender:
            yield stream
            stream.sent_ns = list(map(int, sender.communicate(timeout=PATIENCE_S)[0].split()))
        wait_for_softirqs()
        lines = receiver.communicate(timeout=PATIENCE_S)[0].splitlines()
    pairs = (map(int, line.split()) for line in lines)
    stream.arrived = [(number, now_ns - start_ns) for number, now_ns in pairs]


@contextmanager
def sizes_of(target: Pod, count: int) -> Iterator[list[int]]:
    """Return the payload sizes of the next packets that a pod receives, in order, after the block ends."""
    sizes: list[int] = []
    with _running(target, _RECEIVE_SIZES, str(target.ip), str(count)) as receiver:
        assert receiver.stdout and receiver.stdout.readline() == "ready\n"
        yield sizes
        sizes += map(int, receiver.communicate(timeout=PATIENCE_S)[0].split())


@contextmanager
def _running(pod: Pod, script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program inside a pod until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = pod.popen("/usr/bin/python3", "-c", script, *words, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
