"""``explain pod --from`` names the bucket that the traffic of a source shares."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.world import LIMIT, Objects, World, policy
from tokenbucket.apiserver.resources import PODS
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.collect import Collector
from tokenbucket.plugin.explain.explanation import explain
from tokenbucket.plugin.explain.sources import of_source

PER_PEER = {**LIMIT, "perPeer": {"rate": {"bits": "1M"}, "ipv4PrefixLength": 24, "ipv6PrefixLength": 56}}
ALONE = {**LIMIT, "perPeer": {"rate": {"bits": "1M"}}}
NODE = "192.0.2.7"


def lines(world: World, address: str) -> list[str]:
    found = Collector(Objects(world)).of("shop", "web-1", with_node=True)
    return of_source(explain(found), (ip_address(address),))


def world(**spec: Any) -> World:
    return World(policies=[policy(**spec)])


@pytest.mark.parametrize(
    ("limit", "address", "bucket"),
    [
        (LIMIT, "10.1.2.3", "the bucket of the pod, which all sources share"),
        (ALONE, "10.1.2.3", "the peer bucket of 10.1.2.3 alone"),
        (PER_PEER, "10.1.2.3", "all addresses of 10.1.2.0/24 share"),
        (PER_PEER, "2001:db8:0:ff12::1", "all addresses of 2001:db8:0:ff00::/56 share"),
        (ALONE, "2001:db8::1", "all addresses of 2001:db8::/64 share"),
        (ALONE, "10.0.0.5", "is not limited"),
    ],
)
def test_the_bucket_of_an_address_is_named(limit: dict[str, Any], address: str, bucket: str) -> None:
    assert [bucket in line for line in lines(world(ingress=limit), address)] == [True]


def test_each_direction_has_its_bucket() -> None:
    inward, outward = lines(world(ingress=ALONE, egress=LIMIT), "10.1.2.3")
    assert inward.startswith("ingress, from 10.1.2.3: the peer bucket of")
    assert outward.startswith("egress, to 10.1.2.3: the bucket of the pod")


def test_only_packets_of_the_node_may_use_the_reserve() -> None:
    inward, outward = lines(world(ingress=LIMIT, egress=LIMIT), NODE)
    assert "reserve" in inward
    assert "reserve" not in outward
    assert "reserve" not in lines(world(ingress=LIMIT), "192.0.2.8")[0]


def test_exempt_pods_and_pods_without_a_policy_have_no_bucket() -> None:
    exempt = world()
    exempt.pod["spec"]["hostNetwork"] = True
    assert "no limit" in lines(exempt, "10.1.2.3")[0]
    assert "no policy" in lines(World(policies=[]), "10.1.2.3")[0]


@pytest.mark.parametrize(
    ("found", "states"),
    [
        (World(enforcement=Mode.OFF, override={"enforcement": "Off"}), ["EnforcementOff"]),
        (
            World(enforcement=Mode.OBSERVE, override={"enforcement": "Observe"}),
            ["EnforcementObserve"],
        ),
        (World(policies=[policy(mode="Observe")]), ["Observed"]),
        (World(reason=Reason.SHADOWED), ["Shadowed"]),
        (World(report_fields={"clean": True}), ["CleanedUp"]),
        (World(seen_policies=[]), ["Pending"]),
        (World(policies=[policy(egress=LIMIT)], reason=Reason.SHADOWED), ["Shadowed", ""]),
        (
            World(policies=[policy(mode="Observe"), policy("out", ingress=None, egress=LIMIT)]),
            ["Observed", ""],
        ),
    ],
)
def test_a_bucket_that_does_not_limit_is_never_named_without_the_cause(
    found: World, states: list[str]
) -> None:
    """Name it for the direction to which it applies."""
    for code, line in zip(states, lines(found, "10.1.2.3"), strict=True):
        assert line.endswith(f": {code}" if code else "share")


def test_a_source_may_be_a_pod_of_any_namespace(run: Run, api: FakeApi) -> None:
    world(ingress=ALONE).store(api)
    api.put(PODS, "client", "other", status={"podIPs": [{"ip": "10.9.9.9"}]})
    api.put(PODS, "starting", "shop", status={})
    command = ("explain", "pod", "web-1", "-n", "shop", "--from")
    assert "of 10.9.9.9 alone" in run(*command, "other/client").out
    assert run(*command, "client").code == PluginExit.NOT_FOUND
    starting = run(*command, "starting")
    assert starting.code == PluginExit.FAILED
    assert "has no address" in starting.err
