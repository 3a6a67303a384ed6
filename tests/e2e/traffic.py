"""Traffic between pods, measured at the receiver, with the observer. Every flow ends by itself."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cluster.kubectl import Kubectl
from cluster.workloads import IPERF_PORT
from tests.e2e.observed import observed

_UDP_PAYLOAD_BYTES = 1400
_HEADERS_BYTES = {4: 14 + 20 + 8, 6: 14 + 40 + 8}
"""Of Ethernet, IP and UDP, which the limit counts too."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The traffic that arrived."""

    bits_per_s: float
    """On the wire for UDP, as the limit counts; payload for TCP."""
    seconds: float
    retransmissions: int = 0


def address(kubectl: Kubectl, pod: str, version: int = 4) -> str:
    """Return an address of a pod."""
    found = [entry["ip"] for entry in kubectl.get("pod", pod)["status"]["podIPs"]]
    return str(next(each for each in found if (":" in each) == (version == 6)))


def udp(
    kubectl: Kubectl, client: str, server: str, bits_per_s: int, seconds: int = 4, version: int = 4
) -> Flow:
    """Offer so many bits per second on the wire from one pod to another (which runs iperf3's server).

    The first second does not count: the burst is used up in it.
    """
    payload = bits_per_s * _UDP_PAYLOAD_BYTES // (_UDP_PAYLOAD_BYTES + _HEADERS_BYTES[version])
    options = ["--udp", f"--bitrate={payload}", f"--length={_UDP_PAYLOAD_BYTES}", "--omit=1"]
    report = _iperf(kubectl, client, server, version, seconds, options)
    arrived = report["end"]["sum_received"]
    wire = (_UDP_PAYLOAD_BYTES + _HEADERS_BYTES[version]) / _UDP_PAYLOAD_BYTES
    return Flow(arrived["bits_per_second"] * wire, arrived["seconds"])


def tcp(
    kubectl: Kubectl,
    client: str,
    server: str,
    seconds: int = 6,
    version: int = 4,
    omit: int = 2,
    streams: int = 1,
) -> Flow:
    """As much as TCP gives. The first ``omit`` seconds do not count: the burst is used up in them."""
    options = [f"--omit={omit}", f"--parallel={streams}"]
    report = _iperf(kubectl, client, server, version, seconds, options)
    sent, arrived = report["end"]["sum_sent"], report["end"]["sum_received"]
    return Flow(arrived["bits_per_second"], arrived["seconds"], sent.get("retransmits", 0))


def _iperf(
    kubectl: Kubectl, client: str, server: str, version: int, seconds: int, options: list[str]
) -> dict[str, dict[str, dict[str, float]]]:
    target = address(kubectl, server, version)
    words = ["iperf3", f"--client={target}", f"--port={IPERF_PORT}", f"--time={seconds}", "--json", *options]
    with observed(kubectl, client, server, seconds):
        report: dict[str, dict[str, dict[str, float]]] = json.loads(
            kubectl.exec(client, *words, timeout_s=seconds + 60)
        )
    return report
