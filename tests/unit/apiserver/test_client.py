"""Single requests, to a server that listens and to one that rejects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from yarl import URL

from tests.unit.fake_api import FakeApi, Seen, list_of
from tokenbucket.apiserver import connection
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.connection import Listed
from tokenbucket.apiserver.resources import NODES, PODS, POLICIES, Resource, Selection
from tokenbucket.errors import ApiError, UnsupportedError

POLICY = POLICIES.path("shop", "web")


def ask(*questions: Callable[[Client], Awaitable[Any]], listed: Listed | None = None) -> list[Any]:
    """Send requests with one client, one after another. Return the answers."""

    async def run() -> list[Any]:
        async with Client(listed) as client:
            return [await question(client) for question in questions]

    return asyncio.run(run())


def sent(api: FakeApi, question: Callable[[Client], Awaitable[Any]]) -> Seen:
    """Return the only request that this call sends."""
    before = len(api.requests)
    ask(question)
    (seen,) = api.requests[before:]
    return seen


def test_one_object_is_read(api: FakeApi) -> None:
    """Use the path of its kind, namespace and name."""
    put = api.put(POLICIES, "web", "shop", spec={"mode": "Off"})
    assert ask(lambda client: client.get(POLICIES, "web", "shop")) == [put]
    assert (api.requests[-1].method, api.requests[-1].path) == ("GET", POLICY)


def test_a_list_comes_from_the_cache_and_is_passed_on_whole(api: FakeApi) -> None:
    """Send the fields of the selection. Receivers of lists get the version too."""
    mine = api.put(PODS, "mine", "shop", spec={"nodeName": "here"})
    api.put(PODS, "other", "shop", spec={"nodeName": "there"})
    lists: list[tuple[URL, dict[str, Any]]] = []
    pods = Selection(PODS, "spec.nodeName=here", "app=web")
    assert ask(lambda client: client.list(pods), listed=lambda *each: lists.append(each)) == [[mine]]
    query = {"fieldSelector": "spec.nodeName=here", "labelSelector": "app=web", "resourceVersion": "0"}
    assert [seen.query for seen in api.seen(list_of(PODS))] == [query]
    [(url, content)] = lists
    assert (url.path, url.query) == (PODS.path(), query)
    assert content == api.list(PODS, "spec.nodeName=here")


def test_only_lists_are_passed_on(api: FakeApi) -> None:
    """Pass on neither single objects, nor the kinds of the server, nor rejected lists."""
    api.put(POLICIES, "web", "shop")
    api.fail(list_of(POLICIES), 500)
    lists: list[object] = []
    with pytest.raises(ApiError):
        ask(
            lambda client: client.get(POLICIES, "web", "shop"),
            lambda client: client.serves(POLICIES),
            lambda client: client.list(Selection(POLICIES)),
            listed=lambda *each: lists.append(each),
        )
    assert lists == []
    assert "resourceVersion" not in api.requests[0].query


def test_apply_is_server_side_apply(api: FakeApi) -> None:
    """Name the field manager, send only its fields, and force conflicts."""
    api.put(POLICIES, "web", "shop")
    document = {"metadata": {"name": "web", "namespace": "shop"}, "status": {"nodes": 3}}
    seen = sent(api, lambda client: client.apply(POLICIES, document, "tokenbucket-agent", "status"))
    assert (seen.method, seen.path) == ("PATCH", f"{POLICY}/status")
    assert seen.query == {"fieldManager": "tokenbucket-agent", "force": "true", "timeout": "20s"}
    assert seen.headers["Content-Type"] == "application/apply-patch+yaml"
    assert json.loads(seen.body) == document


def test_each_kind_of_patch_has_its_content_type(api: FakeApi) -> None:
    """Use the type by which the server decides how lists merge."""
    api.put(NODES, "here")
    api.kinds.add(NODES)
    patch = {"spec": {"taints": []}}
    merged = sent(api, lambda client: client.patch(NODES.path(name="here"), patch))
    strategic = sent(
        api,
        lambda client: client.patch(NODES.path(name="here", subresource="status"), patch, merge_lists=True),
    )
    assert merged.headers["Content-Type"] == "application/merge-patch+json"
    assert strategic.headers["Content-Type"] == "application/strategic-merge-patch+json"
    assert (merged.path, strategic.path) == ("/api/v1/nodes/here", "/api/v1/nodes/here/status")
    assert json.loads(merged.body) == json.loads(strategic.body) == patch


def test_an_object_is_created_and_deleted(api: FakeApi) -> None:
    """Create it in the collection of its namespace, and delete it by name."""
    document = {"metadata": {"name": "web"}}
    created = sent(api, lambda client: client.create(POLICIES, "shop", document))
    assert (created.method, created.path) == ("POST", POLICIES.path("shop"))
    assert created.headers["Content-Type"] == "application/json"
    assert [each["metadata"]["name"] for each in api.list(POLICIES)["items"]] == ["web"]
    deleted = sent(api, lambda client: client.delete(POLICIES, "web", "shop"))
    assert (deleted.method, deleted.path) == ("DELETE", POLICY)
    assert api.list(POLICIES)["items"] == []


def test_deleting_a_missing_object_succeeds(api: FakeApi) -> None:
    """Raise an error for every other rejection."""
    ask(lambda client: client.delete(POLICIES, "web", "shop"))
    api.fail(lambda seen: seen.method == "DELETE", 403, "no")
    with pytest.raises(ApiError, match="403: no"):
        ask(lambda client: client.delete(POLICIES, "web", "shop"))


def test_an_error_contains_request_object_and_the_servers_message(api: FakeApi) -> None:
    """Contain the status too."""
    api.fail(lambda _: True, 422, "spec.rate: must be positive")
    with pytest.raises(ApiError) as caught:
        ask(lambda client: client.patch(POLICIES.path("shop", "web"), {}))
    assert str(caught.value) == f"PATCH {POLICY}: 422: spec.rate: must be positive"
    assert caught.value.status == 422


def test_no_answer_is_an_error_with_status_0(api: FakeApi) -> None:
    """Name the object and the cause."""
    api.stop()
    try:
        with pytest.raises(ApiError, match=f"GET {POLICY}: no answer: .+") as caught:
            ask(lambda client: client.get(POLICIES, "web", "shop"))
        assert caught.value.status == 0
    finally:
        api.start()


@pytest.mark.parametrize(("kind", "served"), [(POLICIES, True), (NODES, False)])
def test_a_served_kind_is_known(api: FakeApi, kind: Resource, *, served: bool) -> None:
    """Read the kinds from the server."""
    assert ask(lambda client: client.serves(kind)) == [served]


def test_a_group_that_is_not_served_has_no_kinds(api: FakeApi) -> None:
    """Expect this before the CRDs are installed."""
    api.kinds.remove(POLICIES)
    assert ask(lambda client: client.serves(POLICIES)) == [False]


def test_a_request_with_a_rejected_token_is_repeated_with_a_new_one(api: FakeApi) -> None:
    """Use the same client and body. Do not read a valid token for each request."""
    token: Path = connection._TOKEN
    token.write_text("old\n")
    api.token = "old"
    api.put(POLICIES, "web", "shop")

    def patch(client: Client) -> Awaitable[None]:
        return client.patch(POLICIES.path("shop", "web"), {"spec": {"mode": "Off"}})

    def patch_with_a_new_file(client: Client) -> Awaitable[None]:
        token.write_text("new\n")
        return patch(client)

    def patch_with_the_old_one_revoked(client: Client) -> Awaitable[None]:
        api.token = "new"
        return patch(client)

    ask(patch, patch_with_a_new_file, patch_with_the_old_one_revoked, patch)
    tokens = [seen.headers["Authorization"].removeprefix("Bearer ") for seen in api.requests]
    assert tokens == ["old", "old", "old", "new", "new"]
    assert {seen.body for seen in api.requests} == {'{"spec": {"mode": "Off"}}'}


def test_a_token_that_stays_rejected_is_an_error(api: FakeApi) -> None:
    """Try once more, and not again."""
    connection._TOKEN.write_text("old\n")
    api.token = "new"
    with pytest.raises(ApiError, match="401"):
        ask(lambda client: client.get(POLICIES, "web", "shop"))
    assert len(api.requests) == 2


def test_without_credentials_there_is_no_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Name the missing credentials outside of a pod and without a kubeconfig."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UnsupportedError, match="KUBECONFIG"):
        Client()


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_a_minimum_and_differs_between_agents(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Wait for at most twice the time, because all agents receive the same value."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(connection, "asyncio", SimpleNamespace(sleep=sleep))
    for pause in ("2", "1", "3600", "soon"):
        api.fail(lambda _: True, status, Retry_After=pause)
        with pytest.raises(ApiError):
            ask(lambda client: client.get(POLICIES, "web", "shop"))
    assert len(waits) == 3
    assert 2 <= waits[0] <= 4
    assert 1 <= waits[1] <= 2
    assert waits[2] == 10


def test_objects_are_counted_without_reading_them(api: FakeApi) -> None:
    """Request one object from the storage, because the cache ignores the limit."""
    first = {"kind": "List", "metadata": {"remainingItemCount": 4999}, "items": [{}]}
    api.answer(lambda seen: seen.query == {"limit": "1", "resourceVersion": ""}, first)
    assert ask(lambda client: client.count(NODES)) == [5000]
