"""Traffic to pods that do not exist yet."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Sequence

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.e2e.traffic import address

_FLOOD = """
import socket, sys, time
per_s, targets = int(sys.argv[1]) / 8 / 1442, sys.argv[2:]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setblocking(False)
payload, begin, sent = bytes(1400), time.monotonic(), 0
while (now := time.monotonic()) - begin < 600:
    due = int((now - begin) * per_s)
    for target in targets * min(due - sent, 20):
        try:
            sender.sendto(payload, (target, 9))
        except OSError:
            pass
    sent = due
    time.sleep(0.01)
"""


@contextlib.contextmanager
def flood_of_those_to_come(
    here: Kubectl, places: Sequence[str], pods: int, bits_per_s: int
) -> Iterator[None]:
    """Send UDP to the addresses that the next pods of the nodes will get."""
    here.apply(*(pod(f"flood-{node}", node) for node in places))
    here.wait("condition=Ready", "pod", "--all", timeout_s=120)
    for node in places:
        first = ipaddress.IPv4Address(address(here, f"flood-{node}"))
        flood(here, f"flood-{node}", [first + number for number in range(1, pods + 1)], bits_per_s)
    yield
    here.run("delete", "pod", *(f"flood-{node}" for node in places))


def flood(here: Kubectl, client: str, targets: Sequence[ipaddress.IPv4Address], bits_per_s: int) -> None:
    """Send UDP from a pod to these addresses for ten minutes, or until the pod ends."""
    here.exec(
        client,
        *("sh", "-c", 'setsid python3 -c "$@" </dev/null >/dev/null 2>&1 &'),
        *("sh", _FLOOD, str(bits_per_s), *map(str, targets)),
    )
