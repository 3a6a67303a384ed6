"""The parts of the API that the agents of a cluster support."""

from __future__ import annotations

from typing import Any

import pytest

from tokenbucket.controller.fleet import Fleet
from tokenbucket.controller.objects import read_policy, read_report
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.api.policy import FEATURES


def unsupported(features: dict[str, list[str]], **limit: Any) -> tuple[str, ...]:
    """Return the nodes whose agents do not support a policy with this limit."""
    reports = [
        read_report({"metadata": {"name": node}, "status": {"agent": {"features": listed}}})
        for node, listed in features.items()
    ]
    spec = {"podSelector": {}, "ingress": {"rate": {"bits": "1M"}, **limit}}
    policy = read_policy(
        {
            "apiVersion": API_VERSION,
            "kind": POLICY,
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": spec,
        }
    )
    assert not policy.head.rejected
    return Fleet.of(reports).unsupported(policy.head.features)


@pytest.mark.parametrize(
    ("limit", "nodes"),
    [
        ({}, ()),
        ({"exceedAction": "Drop"}, ()),
        ({"exceedAction": "Delay", "queue": "Fair"}, ("old", "without-fair")),
        ({"exceedAction": "Drop", "perPeer": {"rate": {"bits": "8k"}}}, ("old",)),
    ],
)
def test_agents_that_list_no_features_support_only_those_without_a_list(
    limit: dict[str, Any], nodes: tuple[str, ...]
) -> None:
    """Warn before a rollout that agents of an earlier version do not enforce a new part of the API."""
    every = [str(feature) for feature in FEATURES]
    features = {"new": every, "old": [], "without-fair": [each for each in every if each != "Fair"]}
    assert unsupported(features, **limit) == nodes


def test_a_cluster_without_reports_supports_everything() -> None:
    """Say nothing about agents that do not exist yet."""
    assert unsupported({}, exceedAction="Delay", queue="Fair") == ()
