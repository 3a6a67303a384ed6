"""The whole controller, with watches, lists and probes, against an API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.unit.controller.test_reconciler import agent, node, report, writes_status
from tests.unit.fake_api import FakeApi, list_of
from tokenbucket.apiserver import informers
from tokenbucket.apiserver.lease import LEASES
from tokenbucket.apiserver.resources import EVENTS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.controller.run import Controller, ControllerOptions
from tokenbucket.core.api.parse import API_VERSION, POLICY

PATIENCE_S = 120.0
NAMESPACE = "tokenbucket-system"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def put_policy(api: FakeApi, name: str) -> None:
    api.put(
        POLICIES,
        name,
        "shop",
        apiVersion=API_VERSION,
        kind=POLICY,
        metadata={"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        spec={"podSelector": {}, "ingress": {"rate": {"bits": "1M"}}},
    )


def test_statuses_follow_the_cluster_from_start_to_sigterm(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read existing objects, receive changes, list again, answer probes, and end."""
    monkeypatch.setattr(informers, "_RELIST_S", 0.05)
    monkeypatch.setattr(informers, "_DOUBT_S", 0.05)
    api.kinds |= {REPORTS, NODES, EVENTS, LEASES}
    put_policy(api, "web")
    api.put(NODES, "a", status=node("a")["status"])
    pod = agent("a")
    api.put(PODS, "agent-a", NAMESPACE, metadata=pod["metadata"], spec=pod["spec"], status=pod["status"])
    api.put(REPORTS, "a", status=report("a")["status"])
    options = ControllerOptions(NAMESPACE, "controller-1", "", "127.0.0.1", free_port())
    controller = Controller(options)

    async def probe(path: str) -> int:
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{options.probe_port}{path}") as response:
                return response.status
        except aiohttp.ClientConnectorError:
            return 0

    async def use() -> None:
        running = asyncio.create_task(controller.run())

        async def is_ready() -> bool:
            assert not running.done()
            return await probe("/healthz") == await probe("/readyz") == 200

        async def written(policy: str) -> bool:
            return bool(api.seen(writes_status(policy)))

        await until(is_ready)
        assert controller.ready
        await until(lambda: written("web"))
        put_policy(api, "late")
        await until(lambda: written("late"))
        before = len(api.seen(list_of(POLICIES)))
        await until(lambda: asyncio.sleep(0, len(api.seen(list_of(POLICIES))) > before))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, PATIENCE_S)

    asyncio.run(use())
    conditions = json.loads(api.seen(writes_status("web"))[0].body)["status"]["conditions"]
    assert {each["type"]: each["reason"] for each in conditions}["Ready"] == "Programmed"
    assert not controller.ready
