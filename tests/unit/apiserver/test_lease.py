"""The election of a leader among controllers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.generated import inputs
from tests.unit.fake_api import FakeApi
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.lease import LEASES, NAME, NAMESPACE, Election
from tokenbucket.errors import ApiError


class Clocks:
    """Processes with one clock each."""

    def __init__(self, *identities: str) -> None:
        self.now = dict.fromkeys(identities, 0.0)
        self.processes = {name: Election(name, clock=lambda name=name: self.now[name]) for name in identities}

    def pass_time(self, seconds: float) -> None:
        for name in self.now:
            self.now[name] += seconds

    def leaders(self) -> list[str]:
        return [name for name, process in self.processes.items() if process.leads]


def run(work: Callable[[Client], Awaitable[None]]) -> None:
    async def use() -> None:
        async with Client() as client:
            await work(client)

    asyncio.run(use())


@pytest.fixture(autouse=True)
def leases(api: FakeApi) -> None:
    """Serve Leases."""
    api.kinds |= {LEASES}


def holder(api: FakeApi) -> str:
    (lease,) = api.list(LEASES)["items"]
    return str(lease["spec"]["holderIdentity"])


def test_one_of_two_releases_leads_and_the_other_follows_it(api: FakeApi) -> None:
    """Wait until the Lease has not changed for its duration, by the own clock."""
    both = Clocks("a/1", "b/1")
    first, second = both.processes.values()
    run(first.step)
    run(second.step)
    assert both.leaders() == ["a/1"]
    assert second.holder == "a/1"
    both.pass_time(14)
    run(second.step)
    assert (both.leaders(), holder(api)) == ([], "a/1")
    both.pass_time(2)
    run(second.step)
    assert (both.leaders(), holder(api)) == (["b/1"], "b/1")
    run(first.step)
    assert both.leaders() == ["b/1"]


def test_a_stopped_leader_frees_the_lease(api: FakeApi) -> None:
    """Let the next one lead without a wait."""
    both = Clocks("a/1", "a/2")
    first, second = both.processes.values()
    run(first.step)
    run(first.release)
    assert holder(api) == ""
    run(second.step)
    assert both.leaders() == ["a/2"]
    run(first.release)
    assert holder(api) == "a/2"


def test_a_slower_process_does_not_lead(api: FakeApi) -> None:
    """Accept the conflict that the API server reports."""
    alone = Clocks("a/1")
    api.put(LEASES, NAME, NAMESPACE, spec={"holderIdentity": ""})
    api.fail(lambda seen: seen.method == "PUT", 409)
    run(alone.processes["a/1"].step)
    assert alone.leaders() == []
    run(alone.processes["a/1"].step)
    assert alone.leaders() == ["a/1"]


def test_a_leader_without_the_api_server_stops_before_another_one_leads(api: FakeApi) -> None:
    """Lead for less time than the Lease lasts."""
    both = Clocks("a/1", "a/2")
    first, second = both.processes.values()
    run(first.step)
    run(second.step)
    both.pass_time(9)
    api.fail(lambda seen: seen.method == "GET", 503)
    with pytest.raises(ApiError):
        run(first.step)
    assert both.leaders() == ["a/1"]
    both.pass_time(2)
    assert both.leaders() == []


STEPS = st.lists(
    st.tuples(st.sampled_from(["a/1", "a/2", "b/1"]), st.sampled_from([0, 1, 4, 9, 16]), st.booleans()),
    max_size=30,
)


@given(STEPS)
@inputs(40)
def test_two_processes_never_lead_at_once(steps: list[tuple[str, int, bool]]) -> None:
    """Inject any failures and waits."""
    lease: dict[str, object] = {}

    class Server:
        """A Lease, with the versions of an API server."""

        async def get(self, *_: object) -> dict[str, object]:
            if not lease:
                raise ApiError("GET", NAME, 404, "")
            return dict(lease)

        async def create(self, _: object, __: str, document: dict[str, object]) -> None:
            lease.update(document, metadata={"resourceVersion": "1"})

        async def replace(self, _: object, document: dict[str, object]) -> None:
            assert document["metadata"] == lease["metadata"]
            version = int(lease["metadata"]["resourceVersion"])  # type: ignore[index]
            lease.update(document, metadata={"resourceVersion": str(version + 1)})

    clocks = Clocks("a/1", "a/2", "b/1")
    for name, seconds, fails in steps:
        clocks.pass_time(seconds)
        if not fails:
            asyncio.run(clocks.processes[name].step(Server()))  # type: ignore[arg-type]
        assert len(clocks.leaders()) <= 1
