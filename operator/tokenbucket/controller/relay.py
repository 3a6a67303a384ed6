"""Relay requests for live figures from the API server to the agent of one node.

One request causes one request to one agent, without retries. The relay parses requests itself, so that only
valid ones reach agents, and adds nothing to them: the uids in a request are all that authorizes it.
"""

from __future__ import annotations

import os
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from tokenbucket.apiserver.bounded_http import AnswerError, application, parsed
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.objects import AgentPod
from tokenbucket.core.api.live import AGENT_PATH, MOST_ANSWER_BYTES, MOST_BYTES, RELAY_PATH, LiveRequest

_TIMEOUT_S = 4.0
_MOST_AT_ONCE = 32
_JSON = "application/json"


class Relay:
    """The relay of one controller. Use an instance as a context manager, in one event loop."""

    def __init__(self, agents: Store[AgentPod], port: int) -> None:
        """Create a relay. ``port`` is the port of the agents on their nodes."""
        self._agents, self._port = agents, port
        self._running = 0

    async def __aenter__(self) -> Self:
        # The addresses are those of nodes: a proxy of the environment does not lead to them.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=_MOST_AT_ONCE, force_close=True),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def application(self) -> web.Application:
        """Return the HTTP application."""
        return application([web.post(RELAY_PATH.format(node="{node}"), self.answer)], MOST_BYTES)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request with the answer of the agent."""
        node, wanted = request.match_info["node"], await parsed(request)
        address = self._address_of(node)
        if self._running >= _MOST_AT_ONCE:
            raise AnswerError(503, "controller", "has too many requests", "retry later")
        self._running += 1
        try:
            status, content = await self._ask(address, wanted)
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = _reason(error)
            action = "check the pod of the agent, and whether the controller reaches the node's port"
            raise AnswerError(504, f"node {node}", f"its agent does not answer: {reason}", action) from error
        finally:
            self._running -= 1
        if len(content) > MOST_ANSWER_BYTES:
            raise AnswerError(502, f"node {node}", "the answer of its agent is too large", "name fewer pods")
        return web.Response(status=status, body=content, content_type=_JSON)

    async def _ask(self, address: str, wanted: LiveRequest) -> tuple[int, bytes]:
        url = URL.build(scheme="http", host=address, port=self._port, path=AGENT_PATH)
        async with self._session.post(url, json=wanted.to_document(), allow_redirects=False) as response:
            if response.content_type != _JSON:  # another program has the port
                raise aiohttp.ClientPayloadError(f"port {self._port} belongs to another program")
            return response.status, await _read(response.content)

    def _address_of(self, node: str) -> str:
        """Return the address of the agent of a node. During an update, a node may have two agent pods."""
        pods = [pod for pod in self._agents.values() if pod.node == node and pod.address]
        if not pods:
            action = "check the DaemonSet of the agents and the name of the node"
            raise AnswerError(404, f"node {node}", "has no pod of an agent", action)
        return max(pods, key=lambda pod: (pod.ready, pod.created_s)).address


def _reason(error: Exception) -> str:
    """Return why an agent did not answer, without its address: clients combine equal reasons of nodes."""
    match error:
        case OSError() if error.errno:
            return os.strerror(error.errno)
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return str(error)
        case aiohttp.ClientConnectorError():
            return "no connection"
    return "not valid HTTP"


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read an answer, at most one byte more than allowed."""
    found = b""
    while len(found) <= MOST_ANSWER_BYTES:
        chunk = await content.read(MOST_ANSWER_BYTES + 1 - len(found))
        if not chunk:
            break
        found += chunk
    return found
