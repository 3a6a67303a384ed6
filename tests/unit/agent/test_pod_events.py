"""Events about pods whose annotations are not valid."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tokenbucket.agent.pod_events import PodEvents
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import EVENTS
from tokenbucket.core.api.annotations import read_annotations
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import desired
from tokenbucket.core.planning.pod_limits import PodInterfaces
from tokenbucket.core.status.node_status import DesiredInput, NodeState, Outcome
from tokenbucket.errors import ApiError

INVALID = {"kubernetes.io/ingress-bandwidth": "1Mbit", "kubernetes.io/egress-bandwidth": "x"}


def state(*annotations: Mapping[str, str]) -> NodeState:
    """Return the state of a node whose pods have these annotations."""
    pods = tuple(
        Pod(
            PodId("shop", f"web-{number}", f"uid-{number}"),
            {},
            frozenset({IPv4Address("10.0.0.2")}),
            annotated=read_annotations("shop", each),
        )
        for number, each in enumerate(annotations)
    )
    target = desired([], pods, lambda _: PodInterfaces(), Capabilities())
    return NodeState(DesiredInput(pods=pods), Outcome(deviations=tuple(target.deviations)))


@pytest.fixture
def created(api: FakeApi) -> Any:
    """Create the events of states, and return all that were created."""
    api.kinds |= {EVENTS}

    async def create(events: PodEvents, states: tuple[NodeState, ...]) -> None:
        async with Client() as client:
            for each in states:
                await events.create(client, each)

    def run(events: PodEvents, *states: NodeState) -> list[dict[str, Any]]:
        asyncio.run(create(events, states))
        items: list[dict[str, Any]] = api.list(EVENTS)["items"]
        return items

    return run


def test_all_problems_of_a_pod_cause_one_event_about_it(created: Any) -> None:
    """Create it once, also if the agent finds the problems again."""
    [event] = created(PodEvents(), *[state(INVALID, {}, {"kubernetes.io/ingress-bandwidth": "1M"})] * 3)
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web-0",
        "uid": "uid-0",
    }
    assert (event["type"], event["reason"]) == ("Warning", "InvalidAnnotation")
    assert event["message"].startswith("kubernetes.io/ingress-bandwidth: '1Mbit' ")
    assert "; kubernetes.io/egress-bandwidth: 'x' " in event["message"]


def test_events_are_limited_for_each_pod_and_for_the_node(created: Any) -> None:
    """Bound the events of a user who edits a pod, or of a workload that creates pods continuously."""
    edits = [state({"kubernetes.io/ingress-bandwidth": f"{number}Mbit"}) for number in range(10)]
    assert len(created(PodEvents(), *edits)) == 1
    assert len(created(PodEvents(), state(*[INVALID] * 110))) == 1 + 32


def test_a_suppressed_event_is_created_later(created: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the same problems again, as an agent that reconciles regularly."""
    wrong, worse = (state({"kubernetes.io/ingress-bandwidth": text}) for text in ("fast", "faster"))
    edited = PodEvents()
    assert len(created(edited, wrong, worse, worse)) == 1
    many, problems = PodEvents(), state(*[INVALID] * 40)
    assert len(created(many, problems)) == 1 + 32
    monkeypatch.setattr("tokenbucket.apiserver.events._INTERVAL_S", 0.0)
    assert len(created(many, problems, problems)) == 1 + 40
    assert "'faster'" in created(edited, worse, worse)[-1]["message"]


def test_an_event_that_finds_no_api_server_is_created_later(api: FakeApi, created: Any) -> None:
    """Do not retry a rejected one, because the report of the node has the same message."""
    events = PodEvents()

    def posts(seen: Seen) -> bool:
        return seen.method == "POST"

    api.fail(posts, 403)
    assert created(events, state(INVALID)) == []
    assert created(events, state(INVALID)) == []
    later = PodEvents()
    api.stop()
    with pytest.raises(ApiError):
        created(later, state(INVALID))
    api.start()
    assert len(created(later, state(INVALID))) == 1
