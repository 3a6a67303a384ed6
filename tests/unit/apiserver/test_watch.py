"""Watches of an API server that fails in every known way."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from yarl import URL

from tests.unit.fake_api import END, RESET, FakeApi, Seen, list_of, watch_of
from tokenbucket import pacing
from tokenbucket.apiserver import connection, informers, watch
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.informers import Informers
from tokenbucket.apiserver.resources import CONFIG_MAPS, PODS, POLICIES, Selection
from tokenbucket.apiserver.restart_pace import RestartPace
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.errors import ApiError

# kopf leaves the session of an operator that ended with an error to the garbage collector, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PATIENCE_S = 240.0


class Watching:
    """Watches of all policies and of the pods of node ``here``, and the changes of the store of policies."""

    def __init__(self) -> None:
        self.changes: list[set[str]] = []
        """Names of the policies after each change."""
        self.policies: Store[tuple[str, str]] = Store(_read, self._record)
        self.pods: Store[tuple[str, str]] = Store(_read)
        pods = Selection(PODS, "spec.nodeName=here")
        self.watches = (Watch(Selection(POLICIES), self.policies), Watch(pods, self.pods))

    def _record(self) -> None:
        self.changes.append(self.names())

    def names(self) -> set[str]:
        return {name for name, _ in self.policies.values()}

    def content_of(self, name: str) -> str:
        return dict(self.policies.values()).get(name, "")

    def synced(self) -> bool:
        return self.policies.synced.is_set() and self.pods.synced.is_set()

    def relist(self) -> None:
        """List everything again beside the watches, as the reporter does."""
        asyncio.run(self._relist())

    async def _relist(self) -> None:
        async with Client(self._listed) as client:
            for each in self.watches:
                await each.relist(client)

    async def relist_policies(self) -> None:
        async with Client(self._listed) as client:
            await self.watches[0].relist(client)

    def _listed(self, url: URL, content: Mapping[str, Any]) -> None:
        for each in self.watches:
            each.listed(url, content)


def _read(document: Mapping[str, Any]) -> tuple[str, str]:
    return document["metadata"]["name"], document.get("spec", {}).get("content", "")


@contextmanager
def started() -> Iterator[Watching]:
    """Start watches, and end them at the end."""
    found = Watching()
    for each in found.watches:
        each.start()
    try:
        yield found
    finally:
        for each in found.watches:
            each.stop()
    assert not any(each.alive for each in found.watches)


@contextmanager
def watching(api: FakeApi) -> Iterator[Watching]:
    """Start watches that have listed everything and receive changes."""
    with started() as found:
        wait(lambda: found.synced() and api.watched(POLICIES) and api.watched(PODS))
        found.changes.clear()
        yield found


def wait(condition: Callable[[], object]) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S} s in vain"
        time.sleep(0.005)


@pytest.fixture
def real_delays(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the short delays of the fixture ``api``."""
    monkeypatch.setattr(pacing, "random", SimpleNamespace(uniform=lambda *_: 0.5))


@pytest.fixture
def stores(api: FakeApi) -> Iterator[Watching]:
    """Return the stores of a watch, with policy ``web`` in them."""
    api.put(POLICIES, "web", "shop")
    with watching(api) as stores:
        yield stores


def half_a_line(api: FakeApi, end: object) -> None:
    api.send('{"type": "ADDED", "object": {"metadata": {"na')
    api.cut(end)


def an_error_event(api: FakeApi) -> None:
    api.send('{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is away"}}\n')
    api.cut(END)


FAULTS: dict[str, Callable[[FakeApi], None]] = {
    "time is over": lambda api: api.cut(END),
    "reset": lambda api: api.cut(RESET),
    "line cut short, then reset": lambda api: half_a_line(api, RESET),
    "line cut short, then end": lambda api: half_a_line(api, END),
    "error event": an_error_event,
}


def test_changes_reach_the_store(api: FakeApi, stores: Watching) -> None:
    """Create, change and remove objects. Receive only the pods of the node."""
    api.put(POLICIES, "db", "shop")
    wait(lambda: stores.names() == {"web", "db"})
    api.put(POLICIES, "db", "shop", spec={"content": "slower"})
    wait(lambda: stores.content_of("db") == "slower")
    api.delete(POLICIES, "web", "shop")
    wait(lambda: stores.names() == {"db"})
    api.put(PODS, "elsewhere", "shop", spec={"nodeName": "there"})
    api.put(PODS, "mine", "shop", spec={"nodeName": "here"})
    wait(lambda: {name for name, _ in stores.pods.values()} == {"mine"})


def test_a_watch_of_one_namespace_asks_for_no_other(api: FakeApi) -> None:
    """Need no right for other namespaces."""
    store = Store(_read)
    ours = Watch(Selection(POLICIES, labels="app=web"), store, "shop")
    api.put(POLICIES, "web", "shop")
    ours.start()
    try:
        wait(lambda: store.values() and api.watched(POLICIES))
        api.put(POLICIES, "other", "elsewhere")
        api.put(POLICIES, "db", "shop")
        wait(lambda: len(store.values()) == 2)
    finally:
        ours.stop()
    assert {name for name, _ in store.values()} == {"web", "db"}
    objects = api.seen(lambda seen: seen.path.endswith(POLICIES.plural))
    assert {seen.path for seen in objects} == {POLICIES.path("shop")}
    assert {seen.query["labelSelector"] for seen in objects} == {"app=web"}


@pytest.mark.parametrize("as_status", [False, True], ids=["event", "status"])
def test_objects_deleted_during_a_gap_are_removed_after_410(
    api: FakeApi, stores: Watching, *, as_status: bool
) -> None:
    """Learn from the list after the gap, because no event reports them."""
    api.put(POLICIES, "db", "shop")
    wait(lambda: stores.names() == {"web", "db"})
    stores.changes.clear()
    api.gone_as_status = as_status
    with api.lock:
        api.cut(RESET)
        api.delete(POLICIES, "db", "shop")
        api.compact()
    wait(lambda: stores.names() == {"web"})
    wait(lambda: stores.changes)  # the callback follows the change
    assert stores.changes == [{"web"}]


@pytest.mark.usefixtures("real_delays")
@pytest.mark.parametrize("as_status", [False, True], ids=["event", "status"])
def test_lists_after_410_again_and_again_have_a_growing_delay(
    api: FakeApi, stores: Watching, *, as_status: bool
) -> None:
    """Keep thousands of agents from listing twice per second."""
    api.gone_as_status = as_status
    before = len(api.seen(list_of(POLICIES)))
    api._compacted = 1 << 40
    api.cut(RESET, POLICIES)
    wait(lambda: len(api.seen(list_of(POLICIES))) >= before + 2)
    lists = [seen.at_s for seen in api.seen(list_of(POLICIES))[before:]]
    assert all(second - first >= 0.4 for first, second in itertools.pairwise(lists))


@pytest.mark.usefixtures("real_delays")
def test_watches_that_end_at_once_have_a_growing_delay(api: FakeApi, stores: Watching) -> None:
    """Expect a proxy that accepts each watch and closes it."""
    before = len(api.seen(watch_of(POLICIES)))
    for number in range(1, 3):
        wait(lambda: api.watched(POLICIES))
        api.cut(END, POLICIES)
        wait(lambda n=number: len(api.seen(watch_of(POLICIES))) >= before + n)
    watches = [seen.at_s for seen in api.seen(watch_of(POLICIES))[before - 1 :]]
    assert all(second - first >= 0.4 for first, second in itertools.pairwise(watches))


def test_the_delay_of_restarts_grows_and_ends_after_a_long_watch() -> None:
    """Delay a request that fails only once: kopf retries it with its own delays."""
    now = 0.0
    pace = RestartPace(lambda: now)

    def answered(*, ok: bool) -> float:
        wait_s = pace.wait_s(is_watch=True)
        pace.answered(is_watch=True, ok=ok)
        return wait_s

    waits = []
    for _ in range(8):
        waits.append(answered(ok=True))
        now += 1
    assert waits[0] == 0
    for wait_s, most_s in zip(waits[1:], (1, 2, 4, 8, 16, 20, 20), strict=True):
        assert most_s / 2 <= wait_s <= most_s
    assert answered(ok=False) > 0
    assert answered(ok=False) == 0
    assert answered(ok=True) == 0
    now += 21
    assert answered(ok=True) == 0
    now += 1
    assert answered(ok=True) <= 1


@pytest.mark.parametrize(
    ("path", "waits"), [("/apis/tokenbucket.dev/v1alpha1", False), ("/api/v1/pods", True)]
)
def test_only_lists_and_watches_are_delayed(path: str, *, waits: bool) -> None:
    """Answer API discovery at once, which kopf repeats at each start."""
    pace, request = RestartPace(lambda: 0.0), mock.Mock(method="GET", url=URL(f"http://server{path}"))
    asyncio.run(pace(request, mock.AsyncMock()))  # type: ignore[arg-type]
    assert (pace.wait_s(is_watch=False) > 0) is waits


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_stream_loses_no_change(api: FakeApi, stores: Watching, fault: str) -> None:
    """Report each change once, and nothing that did not change."""
    with api.lock:
        FAULTS[fault](api)
        api.put(POLICIES, "db", "shop")
    wait(lambda: stores.names() == {"web", "db"})
    wait(lambda: api.watched(POLICIES))
    wait(lambda: stores.changes)  # the callback follows the change
    assert stores.changes == [{"web", "db"}]


def test_streams_that_break_repeatedly_are_opened_again(api: FakeApi, stores: Watching) -> None:
    """Inject faults that end kopf's operator, and others."""
    for number, fault in enumerate([*FAULTS.values()] * 2):
        wait(lambda: api.watched(POLICIES))
        with api.lock:
            fault(api)
            api.put(POLICIES, f"policy-{number}", "shop")
        wait(lambda n=number: f"policy-{n}" in stores.names())
    assert len(stores.names()) == 1 + 2 * len(FAULTS)


def test_an_outage_of_the_server_keeps_the_store(api: FakeApi, stores: Watching) -> None:
    """Receive all changes once when the server is back."""
    api.put(POLICIES, "db", "shop")
    wait(lambda: stores.names() == {"web", "db"})
    stores.changes.clear()
    api.stop()
    api.delete(POLICIES, "db", "shop")
    api.put(POLICIES, "cache", "shop")
    api.compact()
    with pytest.raises(ApiError, match="no answer"):
        stores.relist()
    assert stores.names() == {"web", "db"}
    assert all(each.alive for each in stores.watches)
    api.start()
    wait(lambda: stores.names() == {"web", "cache"})
    assert stores.changes == [{"web", "cache"}]


def test_a_watch_can_start_before_its_server(api: FakeApi) -> None:
    """Expect this on a node that starts with its cluster."""
    api.put(POLICIES, "web", "shop")
    api.stop()
    with started() as stores:
        assert not stores.synced()
        api.start()
        wait(stores.synced)
        assert stores.names() == {"web"}


def test_a_bookmark_advances_the_watch(api: FakeApi, stores: Watching) -> None:
    """Continue from there after a break, without a new list."""
    for number in range(3):
        api.put(PODS, f"other-{number}", "shop", spec={"nodeName": "there"})
    api.compact()
    api.bookmark()
    api.put(POLICIES, "db", "shop")
    wait(lambda: "db" in stores.names())
    before = len(api.seen(list_of(PODS)))
    with api.lock:
        api.cut(END)
        api.put(PODS, "mine", "shop", spec={"nodeName": "here"})
    wait(stores.pods.values)
    assert len(api.seen(list_of(PODS))) == before


def test_an_empty_list_is_doubted_until_a_second_one(api: FakeApi, stores: Watching) -> None:
    """Keep all limits if a server lists nothing after a restart."""
    with api.lock:
        api.cut(RESET)
        api.answer(list_of(POLICIES), api.list(POLICIES) | {"items": []})
        api.compact()
    wait(lambda: stores.policies.doubtful)
    assert stores.names() == {"web"}
    stores.relist()
    assert not stores.policies.doubtful
    assert stores.names() == {"web"}
    assert stores.changes == []


def test_an_empty_list_that_a_second_one_confirms_takes_effect(api: FakeApi, stores: Watching) -> None:
    """Remove all objects."""
    with api.lock:
        api.cut(RESET)
        api.delete(POLICIES, "web", "shop")
        api.compact()
    wait(lambda: stores.policies.doubtful)
    assert stores.names() == {"web"}
    stores.relist()
    assert stores.names() == set()
    assert stores.changes == [set()]


def test_a_kind_that_disappears_keeps_the_store_and_is_watched_again(api: FakeApi, stores: Watching) -> None:
    """Keep the objects of a deleted CRD until a list reports otherwise."""
    with api.lock:
        api.kinds.remove(POLICIES)
        api.cut(RESET, POLICIES)
    before = len(api.seen(policies_asked_for))
    wait(lambda: len(api.seen(policies_asked_for)) >= before + 3)
    with pytest.raises(ApiError, match="404"):
        stores.relist()
    assert stores.names() == {"web"}
    assert stores.changes == []
    api.kinds.add(POLICIES)
    wait(lambda: api.watched(POLICIES))
    api.put(POLICIES, "db", "shop")
    wait(lambda: stores.names() == {"web", "db"})


def policies_asked_for(seen: Seen) -> bool:
    """Return whether a request asks for the kind of policies."""
    return seen.path == POLICIES.path().rpartition("/")[0]


def test_a_missing_kind_is_watched_when_it_appears(api: FakeApi) -> None:
    """Let an agent start before the CRDs."""
    api.kinds.remove(POLICIES)
    api.put(POLICIES, "web", "shop")
    with started() as stores:
        wait(lambda: len(api.seen(policies_asked_for)) >= 3)
        assert not stores.synced()
        api.kinds.add(POLICIES)
        wait(lambda: stores.names() == {"web"})


def test_the_wait_is_reset_after_an_operator_has_run_long(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do not add up errors that are months apart."""
    monkeypatch.setattr(watch, "LONGEST_BACKOFF_S", 0.0)
    monkeypatch.setattr(watch, "Backoffs", lambda: [0.02, 2 * PATIENCE_S])
    with watching(api):
        for _ in range(3):
            lists = len(api.seen(list_of(POLICIES)))
            an_error_event(api)
            wait(lambda n=lists: len(api.seen(list_of(POLICIES))) > n and api.watched(POLICIES))


def test_retry_after_of_a_busy_server_is_respected(api: FakeApi, stores: Watching) -> None:
    """Wait for Retry-After of status 429, although a back-off is shorter."""
    with api.lock:
        api.cut(RESET)
        api.fail(watch_of(POLICIES), 429, Retry_After="1")
    wait(lambda: len(api.seen(watch_of(POLICIES))) == 3)
    refused, again = api.seen(watch_of(POLICIES))[1:]
    assert again.at_s - refused.at_s >= 1
    assert stores.names() == {"web"}


def test_a_bookmark_is_a_contact(api: FakeApi, stores: Watching) -> None:
    """Count events that kopf does not pass on, because an idle watch is alive."""
    policies, pods = stores.watches
    before = policies.contact_at, pods.contact_at
    api.bookmark()
    wait(lambda: policies.contact_at > before[0] and pods.contact_at > before[1])


def test_a_watch_without_an_answer_has_no_contact(api: FakeApi, stores: Watching) -> None:
    """Keep the time of the last contact while requests fail in any way."""
    policies, _ = stores.watches
    answered = threading.Event()
    for _ in range(1000):
        api.fail(lambda seen: watch_of(POLICIES)(seen) and not answered.is_set(), 403)
    api.cut(RESET)
    refused = len(api.seen(watch_of(POLICIES)))
    wait(lambda: len(api.seen(watch_of(POLICIES))) > refused)
    before = policies.contact_at
    wait(lambda: len(api.seen(watch_of(POLICIES))) > refused + 2)
    assert policies.contact_at == before
    answered.set()
    wait(lambda: policies.contact_at > before)


def test_a_restored_storage_is_noticed_and_its_objects_are_used(api: FakeApi, stores: Watching) -> None:
    """Accept older versions, also of kinds with rare lists. A changed policy stays visible."""
    stores.watches[1].rewritten = True
    api.put(PODS, "pod", "shop", spec={"nodeName": "here", "content": "new"})
    api.put(POLICIES, "web", "shop", spec={"content": "new"})
    wait(lambda: stores.content_of("web") == "new" and stores.pods.values() == (("pod", "new"),))
    stores.relist()
    api.restore(50)
    api.put(POLICIES, "web", "shop", spec={"content": "old"})
    api.put(PODS, "pod", "shop", spec={"nodeName": "here", "content": "old"})

    async def repair() -> None:
        async with Client(stores._listed) as client:
            await Informers(*stores.watches).relist(client)

    async def until_seen() -> None:
        repairing = asyncio.create_task(repair())
        while stores.content_of("web") != "old" or stores.pods.values() != (("pod", "old"),):
            assert not repairing.done()
            await asyncio.sleep(0.01)
        repairing.cancel()

    asyncio.run(stores.relist_policies())
    assert stores.policies.older
    assert not stores.pods.older
    asyncio.run(asyncio.wait_for(until_seen(), PATIENCE_S))


def test_a_rejected_token_is_read_again(api: FakeApi) -> None:
    """Use the token that the kubelet has written in the meantime."""
    token: Path = connection._TOKEN
    token.write_text("old\n")
    api.token = "old"
    api.put(POLICIES, "web", "shop")
    with watching(api) as stores:
        with api.lock:
            api.token = "new"
            token.write_text("new\n")
            api.cut(RESET)
            api.put(POLICIES, "db", "shop")
        wait(lambda: stores.names() == {"web", "db"})


def test_only_read_requests_are_sent(api: FakeApi) -> None:
    """Write no finalizer and no annotation, for any object."""
    for name in ("kopf.zalando.org/KopfFinalizerMarker", "tokenbucket.dev/finalizer"):
        metadata = {"finalizers": [name], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        api.put(POLICIES, name.replace("/", "-").lower(), "shop", metadata=metadata)
    with watching(api) as stores:
        api.put(POLICIES, "web", "shop", metadata={"finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]})
        wait(lambda: "web" in stores.names())
        api.delete(POLICIES, "web", "shop")
        wait(lambda: "web" not in stores.names())
    assert {seen.method for seen in api.requests} == {"GET"}


def test_every_list_is_read_from_the_cache_and_every_watch_continues_from_it(
    api: FakeApi, stores: Watching
) -> None:
    """Spare the server from decoding the pods of all nodes for a list of one node."""
    stores.relist()
    for resource in (PODS, POLICIES):
        assert len(api.seen(list_of(resource))) == 2
        assert {seen.query["resourceVersion"] for seen in api.seen(list_of(resource))} == {"0"}
        assert {seen.query["resourceVersion"] for seen in api.seen(watch_of(resource))} == {"101"}


def test_pods_are_selected_by_the_server(api: FakeApi, stores: Watching) -> None:
    """Select them in every list and watch. Policies have no selection."""
    stores.relist()
    for seen in (*api.seen(list_of(PODS)), *api.seen(watch_of(PODS))):
        assert seen.query["fieldSelector"] == "spec.nodeName=here"
    for seen in (*api.seen(list_of(POLICIES)), *api.seen(watch_of(POLICIES))):
        assert "fieldSelector" not in seen.query


def test_watches_of_one_kind_keep_their_lists_apart(api: FakeApi) -> None:
    """Watch two objects of one namespace by name."""
    api.kinds |= {CONFIG_MAPS}
    stores = {name: Store[tuple[str, str]](_read) for name in ("mode", "mode-override")}
    watches = [
        Watch(Selection(CONFIG_MAPS, f"metadata.name={name}"), store, "here")
        for name, store in stores.items()
    ]
    for name in stores:
        api.put(CONFIG_MAPS, name, "here")

    def tell(url: URL, content: Mapping[str, Any]) -> None:
        for each in watches:
            each.listed(url, content)

    async def relist() -> None:
        async with Client(tell) as client:
            for each in (*watches, *watches):
                await each.relist(client)

    asyncio.run(relist())
    for name, store in stores.items():
        assert store.values() == ((name, ""),)


def test_objects_that_are_written_again_and_again_are_listed_seldom(
    api: FakeApi, stores: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Save the reports of thousands of nodes for each replica of the controller."""
    monkeypatch.setattr(informers, "_RELIST_S", 0.01)
    monkeypatch.setattr(informers, "_DOUBT_S", 0.01)
    stores.watches[1].rewritten = True
    pods, policies = len(api.seen(list_of(PODS))), len(api.seen(list_of(POLICIES)))

    async def relist() -> None:
        async with Client(stores._listed) as client:
            listing = asyncio.create_task(Informers(*stores.watches).relist(client))
            while len(api.seen(list_of(POLICIES))) < policies + 3:
                assert not listing.done()
                await asyncio.sleep(0.01)
            listing.cancel()

    asyncio.run(asyncio.wait_for(relist(), PATIENCE_S))
    assert len(api.seen(list_of(PODS))) == pods


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_watch_without_contact_is_visible_beside_another_of_its_kind(order: tuple[int, int]) -> None:
    """Try both orders."""
    watches = [Watch(Selection(CONFIG_MAPS, f"metadata.name={name}"), Store(_read), "here") for name in "ab"]
    now, unix_now = time.monotonic(), time.time()
    watches[0].contact_at, watches[1].contact_at = now, now - 1000
    contacts = Informers(*(watches[number] for number in order)).contacts()
    assert contacts.keys() == {"configmaps"}
    assert abs(unix_now - 1000 - (contacts["configmaps"] or 0)) < 500


def test_a_watch_reads_a_long_list_in_pages(api: FakeApi) -> None:
    """Read the first and each later list in pages, because all documents at once need too much memory."""
    for number in range(5):
        api.put(POLICIES, f"web-{number}", "shop")
    store: Store[tuple[str, str]] = Store(_read)
    watch = Watch(Selection(POLICIES), store, page=2)

    async def relist() -> None:
        async with Client(watch.listed) as client:
            await watch.relist(client)

    watch.start()
    try:
        wait(lambda: store.synced.is_set() and api.watched(POLICIES))
        assert len(store.values()) == 5
        api.delete(POLICIES, "web-1", "shop")
        asyncio.run(relist())
        assert {name for name, _ in store.values()} == {"web-0", "web-2", "web-3", "web-4"}
    finally:
        watch.stop()
    pages = api.seen(list_of(POLICIES))
    assert [seen.query.get("continue", "").rpartition("/")[2] for seen in pages] == ["", "2", "4", "", "2"]
    assert {seen.query["limit"] for seen in pages} == {"2"}
    assert not any("resourceVersion" in seen.query for seen in pages)
