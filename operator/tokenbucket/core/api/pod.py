"""Define the fields of a pod that limits need. :mod:`tokenbucket.core.api.parse` parses them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tokenbucket.core.api.policy import Direction, Policy


@dataclass(frozen=True, slots=True)
class PodId:
    """Identity of a pod. ``uid`` distinguishes a pod from its successor with the same name. It is empty if a
    document in a manifests folder contains none.
    """

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network that the container runtime made for a pod, as the CNI result cache describes it.

    A pod may have several: the runtime replaces a sandbox that was lost, and may leave its results.
    """

    addresses: frozenset[IPv4Address | IPv6Address]
    namespace: str = ""
    """Name of the network namespace in /run/netns; empty if the results contain none, or several."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """The limits that annotations of a pod declare, as those of a policy."""

    policy: Policy
    """Without a limit if no annotation is valid."""
    problems: Mapping[Direction, str]
    """Why annotations are not valid."""

    @property
    def directions(self) -> AbstractSet[Direction]:
        """Return the directions that have an annotation."""
        return self.policy.limits.keys() | self.problems.keys()

    def rejected(self, problem: str) -> Annotated:
        """Return the same annotations without a limit, because of a problem."""
        return Annotated(replace(self.policy, limits={}), dict.fromkeys(self.directions, problem))


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of this node."""

    id: PodId
    labels: Mapping[str, str]
    addresses: frozenset[IPv4Address | IPv6Address]
    """``status.podIP`` and ``status.podIPs``. Empty for a pod that has ended, which owns no address."""
    sandboxes: tuple[Sandbox, ...] = ()
    """The pod's entries in the CNI result cache. Some may be outdated."""
    static_uid: str = ""
    """For the mirror of a static pod, the uid by which the kubelet and the container runtime know the pod."""
    host_network: bool = False
    ended: bool = False
    waits: bool = False
    """Whether the pod lists the readiness gate, so that the agent sets its condition."""
    has_overhead: bool = False
    """Whether the pod has ``spec.overhead`` from its RuntimeClass, and may run in a virtual machine. Such
    runtimes add a qdisc to the pod-side interface, and fail if the interface already has one.
    """
    annotated: Annotated | None = None
    """``None`` if no annotation declares a limit, or if the agent does not read annotations."""


def intended_node(spec: Mapping[str, Any]) -> str:
    """Return the node that the DaemonSet controller chose for a pod that is not scheduled yet."""
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""
