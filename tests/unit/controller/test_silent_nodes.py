"""The pods that the controller reads because their nodes are silent."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Mapping

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import PODS
from tokenbucket.controller.objects import read_policy
from tokenbucket.controller.silent_nodes import SilentNodes
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.api.selector import Selector

WEB = read_policy(
    {
        "apiVersion": API_VERSION,
        "kind": POLICY,
        "metadata": {"namespace": "shop", "name": "web", "uid": "web-uid", "generation": 1},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": {"rate": {"bits": "1M"}}},
    }
).head
VIRTUAL = frozenset(f"virtual-{number}" for number in range(150))
"""Silent nodes that are read together."""


class Fleet:
    """Silent nodes and their pods."""

    def __init__(self, api: FakeApi) -> None:
        self.api, self.now = api, 1000.0
        self.waits: list[float] = []
        self.nodes = VIRTUAL
        self.silent = SilentNodes(self.waits.append, lambda: self.now)

    def pod(self, name: str, node: str, **labels: str) -> None:
        """Create a pod of the namespace of the policy."""
        self.api.put(PODS, name, "shop", metadata={"labels": labels}, spec={"nodeName": node})

    def jobs(self, number: int, node: str = "virtual-0") -> None:
        """Create pods that the policy does not select."""
        for each in range(number):
            self.pod(f"job-{each}", node)

    def run(self) -> tuple[str, ...]:
        """Read once. Return the nodes with a pod that the policy selects, or with unknown pods."""

        async def run() -> tuple[str, ...]:
            async with Client() as client:
                await self.silent.update(client, self.nodes, {"shop"})
            return await self.silent.affected(WEB, self.nodes)

        return asyncio.run(run())

    def unread(self) -> bool:
        """Return whether the policy must not become ready yet."""
        return self.silent.unread(WEB)

    def reads(self) -> int:
        """Return the number of lists of pods."""
        return len(self.api.seen(is_read))


def is_read(seen: Seen) -> bool:
    """Return whether a request lists pods, of a namespace or of all."""
    return seen.method == "GET" and seen.path.endswith("/pods")


@pytest.fixture
def fleet(api: FakeApi) -> Fleet:
    """Return silent nodes without pods."""
    return Fleet(api)


def test_a_read_keeps_no_labels_of_pods_on_other_nodes(fleet: Fleet) -> None:
    """A namespace can have thousands of pods on nodes with agents. Jobs have labels that differ."""
    for number in range(1500):
        labels = {f"label-{each}": f"{number:04}{each:04}".ljust(63, "x") for each in range(20)}
        fleet.pod(f"job-{number}", "with-agent", **labels)
    sizes = []

    def clock() -> float:
        sizes.append(tracemalloc.get_traced_memory()[0])
        return fleet.now

    fleet.silent = SilentNodes(fleet.waits.append, clock)
    tracemalloc.start()
    try:
        fleet.run()
    finally:
        tracemalloc.stop()
    assert not fleet.unread()
    assert max(sizes) - sizes[0] < 4 * 2**20


@pytest.mark.parametrize("page", [0, 2])
@pytest.mark.parametrize("status", [410, 429, 500, 504])
def test_one_error_makes_no_namespace_unknown(fleet: Fleet, status: int, page: int) -> None:
    """Read the page again soon, or all pages if their version has expired. No policy becomes ready before."""
    fleet.jobs(600)
    position = f"/{page * 250}" if page else ""
    fleet.api.fail(lambda seen: is_read(seen) and seen.query.get("continue", "").endswith(position), status)
    assert not fleet.run()
    assert fleet.unread()
    assert fleet.waits == [1.0]
    fleet.now += 1
    assert not fleet.run()
    assert not fleet.unread()
    assert fleet.reads() == 4 + (page if status == 410 else 0)


@pytest.mark.parametrize("together", [True, False])
def test_errors_that_last_make_pods_unknown(fleet: Fleet, *, together: bool) -> None:
    """Report for no longer than 30 seconds what the controller knew before."""
    fleet.nodes = VIRTUAL if together else frozenset({"b"})
    for affected in (False, False, True):
        fleet.api.fail(is_read, 500)
        assert fleet.run() == (tuple(sorted(fleet.nodes)) if affected else ())
        assert fleet.unread() is not affected
        fleet.now += 15
    fleet.now += 15
    assert not fleet.run()
    assert not fleet.unread()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("status", [410, 429, 500])
def test_known_pods_become_unknown_if_errors_last(fleet: Fleet, status: int, *, together: bool) -> None:
    """Trust a list for 90 seconds of errors only, also if the first page can be read."""
    fleet.jobs(600, "b")
    fleet.nodes = VIRTUAL | {"b"} if together else frozenset({"b"})
    assert not fleet.run()
    fleet.now += 60
    for affected in (False, False, False, True, True):
        fleet.api.fail(lambda seen: is_read(seen) and seen.query.get("continue", "").endswith("/500"), status)
        assert fleet.run() == (tuple(sorted(fleet.nodes)) if affected else ())
        fleet.now += 30
    assert not fleet.run()


def test_a_comparison_of_many_pods_yields_to_the_probes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the pods of at most one node at a time."""
    for number in range(1000):
        fleet.pod(f"job-{number}", f"virtual-{number % 10}", number=str(number))
    compared, longest = [0], [0]
    matches = Selector.matches

    def count(selector: Selector, labels: Mapping[str, str]) -> bool:
        compared[0] += 1
        return matches(selector, labels)

    async def probe() -> None:
        while True:
            before = compared[0]
            await asyncio.sleep(0)
            longest[0] = max(longest[0], compared[0] - before)

    async def run() -> None:
        async with Client() as client:
            await fleet.silent.update(client, fleet.nodes, {"shop"})
        beside = asyncio.create_task(probe())
        await fleet.silent.affected(WEB, fleet.nodes)
        beside.cancel()

    monkeypatch.setattr(Selector, "matches", count)
    asyncio.run(run())
    assert compared == [1000]
    assert longest == [100]


def test_pods_stay_known_while_more_nodes_become_silent(fleet: Fleet) -> None:
    """Read all pods again. An error delays the news from the other nodes only."""
    fleet.pod("web-0", "virtual-0", app="web")
    fleet.pod("web-1", "more-1", app="web")
    assert fleet.run() == ("virtual-0",)
    fleet.nodes |= {f"more-{number}" for number in range(101)}
    fleet.api.fail(is_read, 429)
    assert fleet.run() == ("virtual-0",)
    assert fleet.unread()
    assert fleet.run() == ("more-1", "virtual-0")
    assert not fleet.unread()


def test_a_large_namespace_is_read_in_several_runs(fleet: Fleet) -> None:
    """Bound the duration of a run, and the age of the pods even if the read takes long."""
    fleet.jobs(5200)
    fleet.pod("web", "virtual-1", app="web")
    assert not fleet.run()
    assert fleet.reads() == 20
    assert fleet.unread()
    assert fleet.waits == [1.0]
    fleet.now += 10
    assert fleet.run() == ("virtual-1",)
    assert fleet.reads() == 21
    assert not fleet.unread()
    assert fleet.waits[1:] == [60.0]


@pytest.mark.parametrize("silent", [VIRTUAL, frozenset({"virtual-1"})])
def test_each_pod_is_compared_once_per_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, silent: frozenset[str]
) -> None:
    """Every run asks for every policy."""
    compared: list[Mapping[str, str]] = []
    matches = Selector.matches

    def count(selector: Selector, labels: Mapping[str, str]) -> bool:
        compared.append(labels)
        return matches(selector, labels)

    monkeypatch.setattr(Selector, "matches", count)
    fleet.nodes = silent
    for number in range(50):
        node = f"virtual-{number}" if silent == VIRTUAL else "virtual-1"
        fleet.pod(f"job-{number:02}", node, app="web" if number == 49 else f"db-{number}")
    for runs in (1, 1, 2):
        assert fleet.run() == ("virtual-49" if silent == VIRTUAL else "virtual-1",)
        assert len(compared) == 50 * runs
        fleet.now += 15
