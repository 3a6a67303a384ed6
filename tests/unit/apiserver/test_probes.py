"""The answers to probes of the kubelet."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from tokenbucket.apiserver import probes

HOST = "127.0.0.1"


async def answer(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a path, once a server listens."""
    while True:
        try:
            async with (
                aiohttp.ClientSession(f"http://{HOST}:{port}") as session,
                session.get(path) as response,
            ):
                return response.status, await response.text()
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.01)


def answers(*paths: str, sick: str = "", unready: str = "") -> list[tuple[int, str]]:
    """Return status and text of each path."""

    async def run() -> list[tuple[int, str]]:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        server = asyncio.create_task(probes.serve(HOST, port, healthy=lambda: sick, ready=lambda: unready))
        found = [await answer(port, path) for path in paths]
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        return found

    return asyncio.run(run())


def test_a_healthy_process_answers_both_probes() -> None:
    """Answer no other path."""
    assert answers("/healthz", "/readyz") == [(200, "ok\n"), (200, "ok\n")]
    ((status, _),) = answers("/metrics")
    assert status == 404


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"sick": "no reconcile run for 201 s"}, [(503, "no reconcile run for 201 s\n"), (200, "ok\n")]),
        ({"unready": "no reconcile run yet"}, [(200, "ok\n"), (503, "no reconcile run yet\n")]),
    ],
)
def test_a_problem_is_answered_with_503(wrong: dict[str, str], expected: list[tuple[int, str]]) -> None:
    """Answer each probe separately, so that the kubelet does not restart a process that is not ready."""
    assert answers("/healthz", "/readyz", **wrong) == expected


@pytest.mark.usefixtures("api")
def test_a_port_in_use_is_retried() -> None:
    """Listen as soon as the earlier process has released the port."""

    async def run() -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            servers = {
                f"{name}\n": asyncio.create_task(probes.serve(HOST, port, healthy=str, ready=name.__str__))
                for name in ("one", "other")
            }
            await asyncio.sleep(0)
        while servers:
            _, name = await answer(port, "/readyz")
            server = servers.pop(name)
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    asyncio.run(run())
