"""Cilium's network policies for pods of the suite."""

from __future__ import annotations

from typing import Any


def _cilium_policy(pod: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": pod},
        "spec": {"endpointSelector": {"matchLabels": {"app": pod}}, "ingress": list(rules)},
    }


def accept_all(pod: str) -> dict[str, Any]:
    """Return a policy that switches enforcement on, and keeps nothing back."""
    return _cilium_policy(pod, {"fromEntities": ["all"]})


def accept_only(pod: str, peer: str) -> dict[str, Any]:
    """Return a policy that lets one pod send to ``pod``."""
    return _cilium_policy(pod, {"fromEndpoints": [{"matchLabels": {"app": peer}}]})
