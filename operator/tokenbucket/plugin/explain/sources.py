"""Explain which bucket the traffic of one source shares."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from tokenbucket.core.api.policy import Direction, PerPeer
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.plugin.explain.codes import State
from tokenbucket.plugin.explain.evidence import Evidence
from tokenbucket.plugin.explain.explanation import Explanation

Address = IPv4Address | IPv6Address


def address_of(text: str) -> Address | None:
    """Return the address that a text names, or None."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def of_source(explanation: Explanation, addresses: tuple[Address, ...]) -> list[str]:
    """Return a line for each direction with a policy: the bucket of traffic with these addresses."""
    found = explanation.evidence
    if found.pod.host_network:
        return ["the pod uses the network of the node: no limit applies"]
    applying = [each.policy for each in found.policies if each.applies and each.policy]
    winners = Winners(applying).of(found.subject)
    if not winners:
        return ["no policy applies to the pod: the traffic is not limited"]
    return [
        _line(found, each, winners[each].limits[each].per_peer, address) + _unless_enforced(explanation, each)
        for address in addresses
        for each in Direction
        if each in winners
    ]


def _unless_enforced(explanation: Explanation, direction: Direction) -> str:
    """Return why the bucket does not limit the traffic as declared; empty if it does."""
    of_limit = [each for each in explanation.causes if each.direction in {"", direction.value}]
    codes = [each.code for each in of_limit if each.state is not State.ENFORCED]
    states = [each.state for each in explanation.limits if each.direction == direction.value]
    return f"; {states[0]}: {', '.join(codes)}" if states and codes else ""


def _line(found: Evidence, direction: Direction, per_peer: PerPeer | None, address: Address) -> str:
    way = f"{direction}, {'from' if direction is Direction.INGRESS else 'to'} {address}"
    if address in found.pod.addresses:
        return f"{way}: traffic of the pod with itself does not leave the pod, and is not limited"
    of_node = found.node is not None and str(address) in found.node.addresses
    reserve = direction is Direction.INGRESS and of_node
    but = "; the node's own excess packets, such as probes, may use the reserve of a tenth of the rate"
    if not per_peer:
        others = "sources" if direction is Direction.INGRESS else "destinations"
        return f"{way}: the bucket of the pod, which all {others} share{but if reserve else ''}"
    length = per_peer.ipv4_prefix_length if address.version == 4 else per_peer.ipv6_prefix_length
    prefix = ip_network((address, length), strict=False)
    peer = f"of {address} alone" if prefix.num_addresses == 1 else f"that all addresses of {prefix} share"
    return f"{way}: the peer bucket {peer}, below the bucket of the pod{but if reserve else ''}"
