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
    """Return a Pod document."""
    return {"kind": "Pod", "metadata": {"name": "web-0", "labels": {"app": "web"}, "uid": "u"}, **more}


def test_a_pod_document_is_parsed() -> None:
    """Accept the form of the API server, which repeats podIP in podIPs."""
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "phase": "Running"}
    pod = parse_pod(document(status=status, spec={"hostNetwork": True, "overhead": {"cpu": "250m"}}))
    assert pod.id == PodId("default", "web-0", "u")
    assert pod.labels == {"app": "web"}
    assert pod.addresses == {ip_address("10.0.0.1"), ip_address("fd00::1")}
    assert pod.host_network
    assert pod.has_overhead


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_owns_no_address(phase: str) -> None:
    """Leave the address to another pod that may have it already."""
    assert not parse_pod(document(status={"podIP": "10.0.0.1", "phase": phase})).addresses


def test_a_pod_without_an_address_is_valid() -> None:
    """Accept a pod that was only bound to the node."""
    assert not parse_pod(document(status={"podIP": ""})).addresses


@pytest.mark.parametrize(
    "address", ["10.0.0", "10.0.0.1/24", 167772161, ["10.0.0.1"], "fd00::1%eth0x y", True]
)
def test_an_invalid_address_is_named(address: object) -> None:
    """Reject numbers too, which Python accepts as addresses."""
    with pytest.raises(SpecError, match=r"status\.podIP: .*is not an IP address"):
        parse_pod(document(status={"podIP": address}))


@given(TEXTS, TEXTS, TEXTS)
@example("a", "a", "é" * 23 + "x")
@example("a", "a", "é" * 40)
@example("a", "a", "\ud800")
@example("a" * 63, "a" * 253, "x" * 47)
def test_accepted_names_fit_the_structs_of_the_kernel(namespace: str, name: str, uid: str) -> None:
    """Check lengths in bytes. A name that does not fit would stop the agent at each start."""
    try:
        pod = parse_pod({"kind": "Pod", "metadata": {"namespace": namespace, "name": name, "uid": uid}})
    except SpecError:
        return
    owner = Owner(SlotKey(pod.id, Direction.EGRESS), pod.id.name, 2**63 - 1)
    assert decode_owner(bytes(encode_owner(owner))) == owner


@given(VALUES)
def test_any_input_is_parsed_or_rejected(value: object) -> None:
    """Generate any document, and any values in the fields that the parser reads."""
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
