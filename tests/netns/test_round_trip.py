"""TCP through Delay, with the round-trip time of a real network."""

from __future__ import annotations

import subprocess

import pytest

from tests.netns.agent import PATIENCE_S, Agent, acquaint
from tests.netns.lab import Lab

pytestmark = pytest.mark.needs("sch_fq", "sch_netem")
RATE = 10_000_000
LIMIT = {"rate": {"bits": "10M"}, "burst": {"bytes": "16Ki"}}
ROUND_TRIP = "10ms"
SKIPPED, COUNTED = RATE // 8, RATE // 8 * 4
"""Bytes of the first second, which uses up the burst, and of four more seconds."""
LEAST, MOST = 0.90 * RATE, 1.01 * RATE
"""The share of the payload. Headers are charged too, and take 4 percent."""
_RECEIVE = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 9))
print('ready', flush=True)
connection, _ = server.accept()

def empty_after(count):
    '''Reads so many bytes, and on until none is left to read. Returns how many in all, and when.'''
    done, waiting = 0, 0
    while True:
        try:
            read = len(connection.recv(1 << 20, waiting))
        except BlockingIOError:
            return done, time.monotonic_ns()
        assert read, 'the sender has ended'
        done += read
        waiting = socket.MSG_DONTWAIT if done >= count else 0

_, start_ns = empty_after(int(sys.argv[2]))
count, end_ns = empty_after(int(sys.argv[3]))
print(count * 8 * 10**9 / (end_ns - start_ns))
"""
_SEND = """
import socket, sys
client = socket.create_connection((sys.argv[1], 9))
try:
    while True:
        client.sendall(bytes(1 << 16))
except ConnectionError:
    pass
"""


def test_a_flow_gets_its_rate_and_never_more(agent: Agent, lab: Lab) -> None:
    """Count at the receiver. Measure again if the flow gets less, because the machine may be busy."""
    client, web = lab.pod("client", ["10.1.1.2/24"]), lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    web.run("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", ROUND_TRIP)
    agent.limit(web, ingress=LIMIT)
    found: list[float] = []
    while len(found) < 5 and max(found, default=0) < LEAST:
        words = (str(web.ip), str(SKIPPED), str(COUNTED))
        server = web.popen("/usr/bin/python3", "-c", _RECEIVE, *words, stdout=subprocess.PIPE, text=True)
        assert server.stdout and server.stdout.readline() == "ready\n"
        client.run("/usr/bin/python3", "-c", _SEND, str(web.ip))
        found.append(float(server.communicate(timeout=PATIENCE_S)[0]))
    assert LEAST <= max(found) <= MOST
