"""Continuous traffic, and a record of the bytes that arrived over time."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from cluster.kubectl import Kubectl
from tests.e2e.observed import PROGRAM
from tests.e2e.release import until
from tests.e2e.traffic import address
from tests.observer import Sample, excess, samples_of

_PORT = 9999
_LONGEST_S = 600
"""A flow ends by itself after this time."""
_RECORD = "/tmp/record"
_PID = "/tmp/pid"
_SEND = """
import socket, sys, time
target, (port, bits_per_s, seconds) = sys.argv[1], map(int, sys.argv[2:])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect((target, port))
payload, per_s = bytes(1400), bits_per_s / 8 / 1442
begin, sent = time.monotonic(), 0.0
while (now := time.monotonic()) - begin < seconds:
    due = (now - begin) * per_s
    sent = max(sent, due - per_s / 10)  # what it came too late for is not made up
    while sent < due:
        sent += 1
        try:
            sender.send(payload)
        except OSError:
            pass
    time.sleep(0.002)
"""


class ContinuousTraffic:
    """UDP from one pod to another for as long as the block runs, sampled ten times a second in the pod that
    receives it. Needs no API server in between: both ends run on their own.
    """

    def __init__(self, kubectl: Kubectl, client: str, server: str, bits_per_s: int) -> None:
        self._kubectl = kubectl
        self._client, self._server = client, server
        self._offered = bits_per_s
        self._target = address(kubectl, server)
        self._since = -math.inf

    def __enter__(self) -> Self:
        port, seconds = str(_PORT), str(_LONGEST_S)
        _start(self._kubectl, self._server, *PROGRAM, seconds, port)
        send = ("python3", "-c", _SEND, self._target, port, str(self._offered), seconds)
        _start(self._kubectl, self._client, *send)
        self._cover(1.0)  # the burst is used up in it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pod in (self._client, self._server):
            self._kubectl.exec(pod, "sh", "-c", f"kill $(cat {_PID})")

    def samples(self) -> list[Sample]:
        """Return the samples until now. The last one is at most a fraction of a second old."""
        found = samples_of(self._kubectl.exec(self._server, "cat", _RECORD))
        return [each for each in found if each.before_s > self._since]

    def renew(self) -> None:
        """Start a new record, and wait until it has samples."""
        self.forget()
        self._cover(2.0)

    def forget(self) -> None:
        """Start a new record."""
        self._since = self.samples()[-1].before_s

    def _cover(self, seconds: float) -> list[Sample]:
        """Wait until the record covers this number of seconds from now. Return it."""
        start_s = max((each.after_s for each in self.samples()), default=0.0)
        time.sleep(seconds)  # before that, asking is in vain
        return until(lambda: _from(self.samples(), start_s + seconds))

    def bits_per_s(self, seconds: float = 2.0) -> float:
        """Return the rate over this number of seconds from now."""
        samples = self._cover(seconds)
        last = samples[-1]
        first = next(each for each in samples if each.before_s >= last.before_s - seconds)
        return 8 * (last.bytes - first.bytes) / (last.before_s - first.before_s)

    def arrived(self) -> float:
        """Return the rate in bits per second, from the first sample until now."""
        first, last = (samples := self.samples())[0], samples[-1]
        return 8 * (last.bytes - first.bytes) / (last.before_s - first.before_s)

    def excess(self, rate: int, burst: int) -> int:
        """By how many bytes more has arrived, in that stretch of time where it is most, than the rate and
        one burst let through. A gap in the limit shows in it, and so does a burst that is given twice.
        """
        return excess(self.samples(), rate, burst)


def _from(samples: list[Sample], time_s: float) -> list[Sample]:
    """Return the samples, if they reach this time; otherwise none."""
    return samples if samples and samples[-1].after_s >= time_s else []


def _start(kubectl: Kubectl, pod: str, *words: str) -> None:
    """Start a command in a pod, in the background, so that it outlives the connection."""
    script = f'setsid "$@" </dev/null >{_RECORD} 2>&1 & echo $! >{_PID}'
    kubectl.exec(pod, "sh", "-c", script, "sh", *words)
