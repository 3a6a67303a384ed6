"""What a kubelet is told."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from tokenbucket.apiserver import probes

HOST = "127.0.0.1"


def answers(*paths: str, sick: str = "", unready: str = "") -> list[tuple[int, str]]:
    """Status and text of each path."""

    async def run() -> list[tuple[int, str]]:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        found = []
        async with (
            probes.serve(HOST, port, healthy=lambda: sick, ready=lambda: unready),
            aiohttp.ClientSession(f"http://{HOST}:{port}") as session,
        ):
            for path in paths:
                async with session.get(path) as response:
                    found.append((response.status, await response.text()))
        return found

    return asyncio.run(run())


def test_all_is_well() -> None:
    """Both say so; nothing else is answered."""
    assert answers("/healthz", "/readyz") == [(200, "ok\n"), (200, "ok\n")]
    ((status, _),) = answers("/metrics")
    assert status == 404


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"sick": "no pass for 201 s"}, [(503, "no pass for 201 s\n"), (200, "ok\n")]),
        ({"unready": "no full pass yet"}, [(200, "ok\n"), (503, "no full pass yet\n")]),
    ],
)
def test_what_is_wrong_is_said_with_503(wrong: dict[str, str], expected: list[tuple[int, str]]) -> None:
    """Each question is answered by itself: one that is not ready is not restarted for it."""
    assert answers("/healthz", "/readyz", **wrong) == expected


def test_nothing_listens_any_more_after_the_block() -> None:
    """The port is free for the next one; one that is taken is an error."""

    async def run() -> None:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        for _ in range(2):
            async with probes.serve(HOST, port, healthy=str, ready=str):
                with pytest.raises(OSError, match="in use"):
                    async with probes.serve(HOST, port, healthy=str, ready=str):
                        pass

    asyncio.run(run())
