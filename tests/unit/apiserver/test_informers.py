"""Informers that repair missed events, and lists in doubt, as after a restore of the storage."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tokenbucket.apiserver import informers
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.informers import Informers
from tokenbucket.apiserver.resources import CONFIG_MAPS, PODS, REPORTS, Resource, Selection
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.controller.run import Controller, ControllerOptions

_NAMED = "metadata.name=mode"


def _read(document: Mapping[str, Any]) -> str:
    return str(document["content"])


def watch_of(resource: Resource, fields: str, namespace: str | None = None) -> Watch:
    """Return a watch whose last list has the version 1000, and the one object "new"."""
    watch = Watch(Selection(resource, fields), Store(_read), namespace)
    metadata = {"namespace": "here", "name": "mode", "resourceVersion": "900"}
    watch.store.replace([{"metadata": metadata, "content": "new"}], 1000)
    return watch


def run(found: Informers, monkeypatch: pytest.MonkeyPatch, pauses: int) -> list[float]:
    """List until so many pauses are over, without waiting. Return the pauses."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > pauses:
            raise asyncio.CancelledError

    async def relist() -> None:
        async with Client(found.listed) as client:
            await found.relist(client)

    monkeypatch.setattr(informers, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(relist())
    return slept


def test_a_restored_object_is_read_although_the_role_permits_only_its_name(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let an agent see the enforcement mode after a restore. Its role names the ConfigMaps."""

    def forbidden(seen: Seen) -> bool:
        named = seen.path == CONFIG_MAPS.path("here") and seen.query.get("fieldSelector") == _NAMED
        return seen.path.endswith(CONFIG_MAPS.plural) and not named

    api.kinds.add(CONFIG_MAPS)
    for _ in range(100):
        api.fail(forbidden, 403)
    api.restore(500)
    api.put(CONFIG_MAPS, "mode", "here", content="old")
    watch = watch_of(CONFIG_MAPS, _NAMED, "here")
    watch.store.older = True
    run(Informers(watch), monkeypatch, 2)
    assert watch.store.values() == ("old",)
    assert not watch.store.older


def test_the_version_of_the_storage_costs_one_object_in_the_whole_cluster(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Select no pods of one node: the API server would read the pods of all nodes from the storage."""
    watch = watch_of(PODS, "spec.nodeName=here")
    watch.store.older = True
    run(Informers(watch), monkeypatch, 1)
    asked = api.seen(lambda seen: seen.query.get("limit") == "1")
    assert [(seen.path, seen.query.get("fieldSelector")) for seen in asked] == [(PODS.path(), None)]


@pytest.mark.parametrize("doubt", ["older", "doubtful"])
def test_a_doubt_that_remains_causes_fewer_and_fewer_requests(
    doubt: str, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do not let all agents ask an API server that answers none of them without end."""
    watch = watch_of(PODS, "spec.nodeName=here")
    setattr(watch.store, doubt, True)
    api.rejects = 500
    pauses = run(Informers(watch), monkeypatch, 12)
    assert pauses[0] <= 2
    assert min(pauses[-3:]) >= 150
    assert len(set(pauses[-3:])) == 3
    api.rejects = 0
    api.put(PODS, "web", "shop", spec={"nodeName": "here"}, content="old")
    api.restore(2000)
    api.put(PODS, "web", "shop", spec={"nodeName": "here"}, content="old")
    assert run(Informers(watch), monkeypatch, 1)[-1] <= 2
    assert watch.store.values() == ("old",)


def test_a_missed_deletion_of_any_object_is_repaired(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the controller forget a report that is gone, although agents write all others regularly."""
    controller = Controller(ControllerOptions("here", "controller-1", ""))
    found = controller._informers
    clock = itertools.count(0, 7200)
    monkeypatch.setattr(informers, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    for resource in {watch.selection.resource for watch in found.watches}:
        api.kinds.add(resource)
    api.put(REPORTS, "stays", status={})
    controller.stores.reports.put({"metadata": {"name": "gone", "resourceVersion": "50"}})
    run(found, monkeypatch, 1)
    assert [report.name for report in controller.stores.reports.values()] == ["stays"]
