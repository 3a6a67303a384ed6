"""The addresses and namespaces of pods, weighed from status, CNI results and kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.api.pod import Pod, PodId, Sandbox
from tokenbucket.core.planning.identity import Identified, identify

A, B, C = (IPv4Address(f"10.0.0.{number}") for number in (1, 2, 3))


@dataclass
class Kernel:
    """Namespaces: the addresses of each number, and the numbers of names."""

    addresses: Mapping[int, set[IPv4Address]]
    names: Mapping[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        return self.names.get(name)

    def is_gone(self, name: str) -> bool:
        return bool(self.names) and name not in self.names

    def holders(self, addresses: Iterable[IPv4Address]) -> set[int | None]:
        return {nsid for nsid, held in self.addresses.items() if held & set(addresses)}


def pod(name: str, *status: IPv4Address, results: Iterable[Sandbox] = ()) -> Pod:
    return Pod(PodId("shop", name, name), {}, frozenset(status), sandboxes=tuple(results))


def result(*addresses: IPv4Address, namespace: str = "") -> Sandbox:
    return Sandbox(frozenset(addresses), namespace)


def weigh(kernel: Kernel, *pods: Pod) -> Identified:
    return identify(pods, kernel, kernel.holders)


def addresses_of(found: Identified) -> dict[str, set[IPv4Address]]:
    return {each.id.name: set(each.addresses) for each in found.pods}


TWO = Kernel({1: {A}, 2: {B}})
NAMED = Kernel({1: {A}, 2: {B}}, {"a": 1, "b": 2})


def test_outdated_results_do_not_swap_two_pods() -> None:
    """Follow status and kernel, which agree, as one of two results of each pod does."""
    a = pod("a", A, results=[result(B), result(A)])
    b = pod("b", B, results=[result(A), result(B)])
    assert addresses_of(weigh(TWO, a, b)) == {"a": {A}, "b": {B}}


def test_outdated_results_alone_do_not_swap_two_pods() -> None:
    """Lose or tear the right results. Decide nothing, because each address has two claims."""
    found = weigh(TWO, pod("a", A, results=[result(B)]), pod("b", B, results=[result(A)]))
    assert all(held == {A, B} for held in addresses_of(found).values()), "both pods conflict"


def test_an_outdated_result_does_not_take_the_address_of_a_pod_without_one() -> None:
    """Imitate a runtime that caches only some results."""
    found = weigh(TWO, pod("a", A, results=[result(B)]), pod("b", B, results=[result(B)]))
    assert addresses_of(found) == {"a": {A}, "b": {B}}


def test_a_result_before_the_status_counts() -> None:
    """Limit a new pod before its first container starts."""
    assert addresses_of(weigh(TWO, pod("a", results=[result(A)]))) == {"a": {A}}


def test_a_named_namespace_proves_the_pod() -> None:
    """Ignore the statuses of all pods, as after a restart of the node."""
    found = weigh(NAMED, pod("a", B, results=[result(A, namespace="a")]), pod("b", A))
    assert found.namespaces == {PodId("shop", "a", "a"): 1}
    assert addresses_of(found) == {"a": {A}, "b": set()}


def test_a_result_whose_namespace_has_ended_is_no_evidence() -> None:
    """Ignore a status that repeats it too: another pod may have the address."""
    assert addresses_of(weigh(NAMED, pod("c", A, results=[result(A, namespace="gone")]))) == {"c": set()}
    renewed = pod("a", A, results=[result(B, namespace="gone"), result(A, namespace="a")])
    assert addresses_of(weigh(NAMED, renewed)) == {"a": {A}}


def test_without_a_view_of_names_results_count_by_their_addresses() -> None:
    """Imitate an agent without /run/netns, which sees no name and misses none."""
    assert addresses_of(weigh(TWO, pod("a", A, results=[result(A, namespace="a")]))) == {"a": {A}}


@pytest.mark.parametrize(
    ("status", "proven"), [([A], {1}), ([B], {2}), ([], {2}), ([C], {2})], ids=["old", "new", "none", "other"]
)
def test_of_two_sandboxes_status_and_kernel_decide(status: list[IPv4Address], proven: set[int]) -> None:
    """Leave the namespace of a lost sandbox without its address."""
    kernel = Kernel({1: set(), 2: {B}}, {"old": 1, "new": 2})
    if status == [A]:
        kernel.addresses[1].add(A)
    results = [result(A, namespace="old"), result(B, namespace="new")]
    assert set(weigh(kernel, pod("a", *status, results=results)).namespaces.values()) == proven


def test_a_pod_that_takes_an_address_stays_in_its_namespace() -> None:
    """Let a pod with NET_ADMIN configure any address."""
    kernel = Kernel({1: {A, B}, 2: {B}}, {"a": 1, "b": 2})
    a, b = pod("a", A, results=[result(A, namespace="a")]), pod("b", B, results=[result(B, namespace="b")])
    assert weigh(kernel, a, b).namespaces == {a.id: 1, b.id: 2}
    kernel = Kernel({1: {A}, 2: set()}, {"a": 1, "b": 2})
    assert weigh(kernel, a, b).namespaces == {a.id: 1, b.id: 2}, "without its address too"


def test_status_and_kernel_outweigh_a_namespace_without_its_address() -> None:
    """Keep the namespace of a lost sandbox, and tear the result of the new one."""
    kernel = Kernel({1: set(), 2: {B}}, {"old": 1})
    found = weigh(kernel, pod("a", B, results=[result(A, namespace="old")]))
    assert (found.namespaces, B in addresses_of(found)["a"]) == ({}, True)


def test_two_pods_are_not_proven_in_one_namespace() -> None:
    """Use a name again before the old result is removed. Only the status can decide."""
    results = [result(A, namespace="a")]
    old = pod("old", C, results=results)
    assert weigh(NAMED, old, pod("new", A, results=results)).namespaces == {PodId("shop", "new", "new"): 1}
    assert weigh(NAMED, old, pod("new", results=results)).namespaces == {}


@given(st.data())
def test_no_pod_is_proven_in_the_namespace_of_another(data: st.DataObject) -> None:
    """Generate any statuses, and outdated results of any kind."""
    addresses = [IPv4Address(f"10.0.0.{number}") for number in range(1, 5)]
    kernel = Kernel({n: {a} for n, a in enumerate(addresses)}, {f"ns{n}": n for n in range(len(addresses))})
    outdated = st.builds(result, st.sampled_from(addresses), namespace=st.sampled_from(["", "gone"]))
    pods = [
        pod(
            str(number),
            *data.draw(st.lists(st.sampled_from(addresses), max_size=2)),
            results=[
                *data.draw(st.lists(outdated, max_size=3)),
                *data.draw(st.sampled_from([[], [result(address, namespace=f"ns{number}")]])),
            ],
        )
        for number, address in enumerate(addresses)
    ]
    found = weigh(kernel, *pods)
    assert all(nsid == int(each.name) for each, nsid in found.namespaces.items())
    proven = {int(each.name) for each in found.namespaces}
    for number, held in ((int(each.id.name), each.addresses) for each in found.pods):
        others = {addresses[each] for each in proven - {number}}
        assert not held & others, "an address in a proven namespace belongs to its pod"
    assert proven == {
        int(each.id.name) for each in pods if any(s.namespace not in {"", "gone"} for s in each.sandboxes)
    }
