"""A pod, as far as limits need to know it. Parsing is in :mod:`tokenbucket.core.api.parse`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class PodId:
    """Identity of a pod. ``uid`` tells a pod from its successor of the same name; it is empty
    in a manifests folder that gives none.
    """

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of this node."""

    id: PodId
    labels: Mapping[str, str]
    addresses: frozenset[IPv4Address | IPv6Address]
    """``status.podIP`` and ``status.podIPs``; empty for a pod that has ended: it owns no address."""
    host_network: bool = False
    ended: bool = False
    waits: bool = False
    """Whether it names the readiness gate, and is to be told when its limits are in force."""
    has_overhead: bool = False
    """Whether its RuntimeClass has one (``spec.overhead``): it may run in a virtual machine, whose runtime
    puts a qdisc of its own on the pod's interface, and fails where there is one already.
    """
