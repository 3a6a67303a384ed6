"""The errors of a client whose requests the API server rejects."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import PODS, Selection
from tokenbucket.errors import ApiError


def point(kubeconfig: Path, server: str) -> None:
    """Write a kubeconfig for this server."""
    document = {
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {"token": "none"}}],
    }
    kubeconfig.write_text(json.dumps(document))


def refusal(answer: web.Response, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> ApiError:
    """Return the error of a client whose requests the server rejects with this answer."""

    async def ask() -> None:
        async def respond(_: web.Request) -> web.Response:
            return answer

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", respond)
        async with TestServer(application) as server:
            point(kubeconfig, str(server.make_url("")).rstrip("/"))
            async with Client() as client:
                await client.list(Selection(PODS))

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with pytest.raises(ApiError) as caught:
        asyncio.run(ask())
    return caught.value


def test_a_rejection_without_a_status_object_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distinguish a rejection from a missing answer."""
    words = "Too many requests, please try again later.\n"
    error = refusal(web.Response(status=429, text=words), tmp_path / "config", monkeypatch)
    assert error.status == 429
    assert words.strip() in str(error)


def test_a_rejection_contains_the_servers_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the right that is missing."""
    answer = web.json_response({"kind": "Status", "message": "pods is forbidden"}, status=403)
    error = refusal(answer, tmp_path / "config", monkeypatch)
    assert error.status == 403
    assert "pods is forbidden" in str(error)
