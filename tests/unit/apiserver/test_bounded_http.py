"""The bounds of the servers of agent and controller, with real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any
from unittest import mock

import aiohttp
import pytest
from aiohttp import web

from tests.unit.apiserver.live_client import HOST, free_port, listening, post, served
from tokenbucket.apiserver import bounded_http, paced_listener
from tokenbucket.apiserver.bounded_http import AnswerError, application, serve

PATIENCE_S = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE_S))


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"bytes": len(await request.read())})


async def fail(_: web.Request) -> web.Response:
    raise AnswerError(503, "node a", "is busy", "retry later")


APP_BYTES = 1000


def app() -> web.Application:
    return application([web.post("/echo", echo), web.post("/fail", fail)], APP_BYTES)


def test_a_family_that_the_kernel_lacks_is_left_out() -> None:
    """Serve IPv4 on a node with ``ipv6.disable=1``, on which names still lead to IPv6 addresses."""

    async def use() -> None:
        loop, port = asyncio.get_running_loop(), free_port()
        missing = 9999  # as AF_INET6 is then
        found = [(missing, 0, 0, "", ("::", port)), (socket.AF_INET, 0, 0, "", (HOST, port))]
        listener = paced_listener.Listener("", port, lambda: None, None, 1.0)
        with mock.patch.object(loop, "getaddrinfo", mock.AsyncMock(return_value=found)):
            accepting = asyncio.create_task(listener.accept())
            while not accepting.done():
                with contextlib.suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection(HOST, port)
                    writer.close()
                    break
                await asyncio.sleep(0.01)
        assert not accepting.done()
        accepting.cancel()

    run(use())


def test_errors_name_object_problem_and_action() -> None:
    """Answer as JSON, also for an unknown path, another method and too much content."""

    async def use() -> None:
        async with served(app()) as port:
            assert await post(port, "/echo", data=b"x" * APP_BYTES) == (200, {"bytes": APP_BYTES})
            status, answer = await post(port, "/fail")
            assert (status, answer["error"]) == (
                503,
                {"object": "node a", "problem": "is busy", "action": "retry later"},
            )
            for path, content, expected in (("/", b"", 404), ("/echo", b"x" * (APP_BYTES + 1), 413)):
                status, answer = await post(port, path, data=content)
                assert status == expected
                assert answer["error"].keys() == {"object", "problem", "action"}
            async with aiohttp.request("GET", f"http://{HOST}:{port}/echo") as response:
                assert response.status == 405
                assert "error" in await response.json()

    run(use())


def test_a_connection_above_the_maximum_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep existing connections, and accept others after one has ended."""
    monkeypatch.setattr(bounded_http, "_MOST_CONNECTIONS", 2)

    async def use() -> None:
        async with served(app()) as port:
            idle = [await asyncio.open_connection(HOST, port) for _ in range(2)]
            reader, writer = await asyncio.open_connection(HOST, port)
            assert await reader.read() == b""
            writer.close()
            for _, writer in idle:
                writer.close()
            while True:
                try:
                    assert (await post(port, "/echo"))[0] == 200
                except aiohttp.ClientError:  # the server has not seen the ends yet
                    await asyncio.sleep(0.01)
                else:
                    break

    run(use())


def test_connections_are_accepted_at_a_limited_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the next connection to the kernel during the pause after one."""
    monkeypatch.setattr(paced_listener, "_PAUSE_S", 10 * PATIENCE_S)

    async def use() -> None:
        async with served(app()) as port:  # connects once, to see that the port is open
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.3)
            writer.close()

    run(use())


def test_all_addresses_are_served_without_a_host() -> None:
    async def use() -> None:
        port = free_port()
        task = asyncio.create_task(serve(app(), "", port, "test"))
        await listening(port)
        for address in ("127.0.0.1", "::1")[: 1 + socket.has_dualstack_ipv6()]:
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(use())


@pytest.mark.parametrize(
    "sent", [b"", b"POST /echo HTTP/1.1\r\n", b"POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_slow_client_loses_its_connection(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Close the connection after any part of a request."""
    monkeypatch.setattr(bounded_http, "_LONGEST_S", 0.2)

    async def use() -> None:
        async with served(app()) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(sent)
            await reader.read()  # ends only with the connection
            writer.close()

    run(use())


def test_a_client_that_reads_nothing_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Abort the connection, because a normal close waits until the client reads the answers."""
    monkeypatch.setattr(bounded_http, "_LONGEST_S", 0.2)

    async def use() -> None:
        loop = asyncio.get_running_loop()
        async with served(app()) as port:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, (HOST, port))
                with pytest.raises(ConnectionError):
                    while True:
                        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)

    run(use())


@pytest.mark.usefixtures("api")
def test_an_address_in_use_is_retried() -> None:
    async def use() -> None:
        port = free_port()
        first = asyncio.create_task(serve(app(), HOST, port, "first"))
        await listening(port)
        second = asyncio.create_task(serve(app(), HOST, port, "second"))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await listening(port)
        assert (await post(port, "/echo"))[0] == 200
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    run(use())
