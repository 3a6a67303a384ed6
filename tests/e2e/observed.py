"""The observer in a pod that receives traffic, and the bounds of the enforced policies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.kubectl import Kubectl
from tests import observer
from tests.bounds import bound_of
from tests.observer import Bound, samples_of
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Direction, Mode
from tokenbucket.core.planning.precedence import rank

PERIOD_S = 0.1
PROGRAM = ("python3", "-c", Path(observer.__file__).read_text(), str(PERIOD_S))
"""Prints samples; further words are the seconds that it runs, and a UDP port to open."""


@contextlib.contextmanager
def observed(kubectl: Kubectl, client: str, server: str, seconds: float) -> Iterator[None]:
    """Assert that a pod receives no more than its limits admit, for a number of seconds. Policies that are
    ready with one spec before and after the block count.
    """
    before = _bounds(kubectl, client, server)
    with ThreadPoolExecutor(1) as thread:
        record = thread.submit(kubectl.exec, server, *PROGRAM, str(seconds), timeout_s=seconds + 60)
        yield
        samples = samples_of(record.result())
    after = _bounds(kubectl, client, server)
    excess = [
        f"{name}: {text}"
        for name, bound in before.items()
        if after.get(name) == bound and (text := bound.exceeded(samples))
    ]
    assert not excess, excess


def _bounds(kubectl: Kubectl, client: str, server: str) -> dict[str, Bound]:
    """Return the bounds by policy and direction, of policies on the client's egress or server's ingress."""
    found = kubectl.items("tokenbucketpolicies,pods")
    labels = {each["metadata"]["name"]: each["metadata"]["labels"] for each in found if each["kind"] == "Pod"}
    policies = [parse_policy(each) for each in found if each["kind"] != "Pod" and _is_enforced(each)]
    bounds = {}
    for pod, direction in ((client, Direction.EGRESS), (server, Direction.INGRESS)):
        limiting = (each for each in policies if direction in each.limits and each.mode is Mode.ENFORCE)
        selecting = (each for each in limiting if each.selector.matches(labels[pod]))
        winner = min(selecting, key=rank, default=None)
        bound = winner and bound_of(winner.limits[direction])
        if winner and bound:
            bounds[f"{winner} {direction}"] = bound
    return bounds


def _is_enforced(policy: Mapping[str, Any]) -> bool:
    """Return whether the status of this generation has the conditions Ready and Programmed."""
    true = {
        each["type"]
        for each in policy.get("status", {}).get("conditions", [])
        if each["status"] == "True" and each.get("observedGeneration") == policy["metadata"]["generation"]
    }
    return {"Ready", "Programmed"} <= true
