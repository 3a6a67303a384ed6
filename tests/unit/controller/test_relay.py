"""The controller's relay, between real HTTP servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.unit.apiserver.live_client import HOST, free_port, post, served
from tests.unit.controller.test_reconciler import agent
from tokenbucket.apiserver.store import Store
from tokenbucket.controller import relay as module
from tokenbucket.controller.objects import AgentPod, read_agent
from tokenbucket.controller.relay import Relay
from tokenbucket.core.api.live import AGENT_PATH, LiveRequest

UID = "0f6a1de2-6f0c-4b7a-9d3e-2f1b7c9a5e11"
ANSWER = {"version": 1, "pods": [{"uid": UID}]}
PATIENCE_S = 60.0


class Agents:
    """An agent, with the requests that it received."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[], Awaitable[web.Response]] = self.as_usual

    async def as_usual(self) -> web.Response:
        return web.json_response(ANSWER)

    async def receive(self, request: web.Request) -> web.Response:
        self.requests.append({"path": request.path, "headers": request.headers, "body": await request.json()})
        return await self.answer()

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self.receive)])
        return app


def agent_on(node: str, address: str, **pod: Any) -> dict[str, Any]:
    document = agent(node, **pod)
    document.setdefault("status", {})["podIP"] = address
    return document


def relayed(
    path: str, agents: Agents, pods: list[dict[str, Any]], content: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Return the answer of a relay that knows these agent pods, with the agent at its port."""
    store: Store[AgentPod] = Store(read_agent)
    store.replace(pods, 1)

    async def use() -> tuple[int, Any]:
        body = json.dumps({"uids": [UID]}).encode() if content is None else content
        async with (
            served(agents.application()) as port,
            Relay(store, port) as relay,
            served(relay.application()) as relay_port,
        ):
            return await post(relay_port, path, data=body, headers=headers)

    return asyncio.run(asyncio.wait_for(use(), PATIENCE_S))


def test_the_agent_of_the_node_receives_the_request() -> None:
    """Relay the parsed request alone: no header of the client, and no other field."""
    agents = Agents()
    content = json.dumps({"uids": [UID], "peers": 3, "other": "x" * 100}).encode()
    status, answer = relayed(
        "/v1/nodes/a/pods", agents, [agent_on("a", HOST)], content, Authorization="Bearer secret"
    )
    assert (status, answer) == (200, ANSWER)
    (request,) = agents.requests
    assert request["path"] == AGENT_PATH
    assert request["body"] == LiveRequest(frozenset({UID}), 3).to_document()
    assert "secret" not in str(request["headers"])


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/nodes/b/pods", None, 404),
        ("/v1/nodes/a/pods", b"{}", 400),
        ("/v1/nodes/a/pods", b"x" * 100_000, 413),
        ("/v1/nodes/a/pods/x", None, 404),
        ("/v1/nodes/..%2Fa/pods", None, 404),
        ("/metrics", None, 404),
        (AGENT_PATH, None, 404),
    ],
)
def test_other_requests_reach_no_agent(path: str, content: bytes | None, status: int) -> None:
    agents = Agents()
    found, answer = relayed(path, agents, [agent_on("a", HOST)], content)
    assert found == status
    assert answer["error"].keys() == {"object", "problem", "action"}
    assert not agents.requests


def test_errors_of_the_agent_pass() -> None:
    agents, document = Agents(), {"version": 1, "error": {"object": "node a"}}

    async def busy() -> web.Response:
        return web.json_response(document, status=503)

    agents.answer = busy
    assert relayed("/v1/nodes/a/pods", agents, [agent_on("a", HOST)]) == (503, document)


async def _hang() -> web.Response:
    await asyncio.sleep(PATIENCE_S)
    return web.json_response(ANSWER)


async def _text() -> web.Response:
    return web.Response(text="metrics of another program")


async def _redirect() -> web.Response:
    raise web.HTTPFound("http://127.0.0.1:1/")


async def _close() -> web.Response:
    raise ConnectionResetError


@pytest.mark.parametrize("broken", [_hang, _text, _redirect, _close])
def test_an_agent_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[], Awaitable[web.Response]]
) -> None:
    """Ask once, do not follow redirects, and pass on nothing that is no answer of an agent."""
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.3)
    agents = Agents()
    agents.answer = broken
    status, answer = relayed("/v1/nodes/a/pods", agents, [agent_on("a", HOST)])
    assert status == 504
    assert answer["error"]["object"] == "node a"
    assert len(agents.requests) == 1
    assert HOST not in json.dumps(answer)


def test_a_node_without_a_listening_agent_is_named() -> None:
    store: Store[AgentPod] = Store(read_agent)
    store.replace([agent_on("a", HOST)], 1)

    async def use() -> tuple[int, Any]:
        async with Relay(store, free_port()) as relay, served(relay.application()) as port:
            return await post(port, "/v1/nodes/a/pods", json={"uids": [UID]})

    status, answer = asyncio.run(use())
    assert (status, answer["error"]["object"]) == (504, "node a")
    assert answer["error"]["problem"] == "its agent does not answer: Connection refused"


def test_a_large_answer_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANSWER_BYTES", 10)
    status, answer = relayed("/v1/nodes/a/pods", Agents(), [agent_on("a", HOST)])
    assert (status, answer["error"]["object"]) == (502, "node a")


def test_too_many_requests_are_rejected_before_they_reach_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 0)
    agents = Agents()
    assert relayed("/v1/nodes/a/pods", agents, [agent_on("a", HOST)])[0] == 503
    assert not agents.requests
