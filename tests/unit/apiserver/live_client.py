"""A server of an application on a free port, and requests to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from tokenbucket.apiserver.bounded_http import serve

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        return free.getsockname()[1]


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    """Serve an application, and yield its port."""
    port = free_port()
    server = asyncio.create_task(serve(app, HOST, port, "test"))
    try:
        await listening(port)
        yield port
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


async def post(port: int, path: str, **content: Any) -> tuple[int, Any]:
    """Return the status and the JSON document of an answer."""
    url = f"http://{HOST}:{port}{path}"
    async with aiohttp.request("POST", url, **content) as response:
        return response.status, await response.json()
