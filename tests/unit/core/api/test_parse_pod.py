"""Pods: identity, labels and addresses."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.core.api.test_parse_policy import VALUES
from tokenbucket.bpf.codec import decode_owner, encode_owner
from tokenbucket.core.api.parse import parse_pod
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Owner, SlotKey
from tokenbucket.errors import SpecError

TEXTS = st.text(st.characters(exclude_categories=()), max_size=300)


def document(**more: Any) -> dict[str, Any]:
    """A pod."""
    return {"kind": "Pod", "metadata": {"name": "web-0", "labels": {"app": "web"}, "uid": "u"}, **more}


def test_a_pod_is_read() -> None:
    """As the API server writes it: podIP again among podIPs."""
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "phase": "Running"}
    pod = parse_pod(document(status=status, spec={"hostNetwork": True, "overhead": {"cpu": "250m"}}))
    assert pod.id == PodId("default", "web-0", "u")
    assert pod.labels == {"app": "web"}
    assert pod.addresses == {ip_address("10.0.0.1"), ip_address("fd00::1")}
    assert pod.host_network
    assert pod.has_overhead


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_owns_no_address(phase: str) -> None:
    """Its address may be another's by now."""
    assert not parse_pod(document(status={"podIP": "10.0.0.1", "phase": phase})).addresses


def test_a_pod_without_an_address_yet_is_a_pod() -> None:
    """It was only just bound to the node."""
    assert not parse_pod(document(status={"podIP": ""})).addresses


@pytest.mark.parametrize(
    "address", ["10.0.0", "10.0.0.1/24", 167772161, ["10.0.0.1"], "fd00::1%eth0x y", True]
)
def test_a_wrong_address_is_named(address: object) -> None:
    """A number would be an address to Python."""
    with pytest.raises(SpecError, match=r"status\.podIP: .*is not an IP address"):
        parse_pod(document(status={"podIP": address}))


@given(TEXTS, TEXTS, TEXTS)
@example("a", "a", "é" * 23 + "x")
@example("a", "a", "é" * 40)
@example("a", "a", "\ud800")
@example("a" * 63, "a" * 253, "x" * 47)
def test_what_is_accepted_has_room_in_the_kernel(namespace: str, name: str, uid: str) -> None:
    """Else the agent would fall over one document, at each start. Room there is in bytes."""
    try:
        pod = parse_pod({"kind": "Pod", "metadata": {"namespace": namespace, "name": name, "uid": uid}})
    except SpecError:
        return
    owner = Owner(SlotKey(pod.id, Direction.EGRESS), pod.id.name, 2**63 - 1)
    assert decode_owner(bytes(encode_owner(owner))) == owner


@given(VALUES)
def test_no_input_raises_anything_but_its_own_error(value: object) -> None:
    """Whatever the document, and whatever is in the fields that are read."""
    for candidate in (
        value,
        document(status=value),
        document(spec=value),
        {"kind": "Pod", "metadata": value},
    ):
        try:
            parse_pod(candidate)
        except SpecError as error:
            assert error.problems
