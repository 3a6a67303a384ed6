"""Connections to the API server over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import kopf
import pytest
from aiohttp import web

from tests.unit.test_metrics import issue
from tokenbucket.apiserver.connection import Answers, Outage, open_session


async def version(_: web.Request) -> web.Response:
    return web.json_response({})


@asynccontextmanager
async def served(certificate: Path, port: int = 0) -> AsyncIterator[int]:
    """Serve with the certificate of a folder. Yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    application = web.Application()
    application.router.add_get("/version", version)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", port, ssl_context=context, reuse_address=True)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def issued(folder: Path, name: str) -> Path:
    certificate = folder / name
    certificate.mkdir()
    issue(certificate, name)
    return certificate


def test_a_session_survives_a_rotation_of_the_ca(tmp_path: Path) -> None:
    """Keep the session of a watch for weeks. Reject certificates that the new file does not trust."""
    old, new, foreign = (issued(tmp_path, name) for name in ("old", "new", "foreign"))
    trust = tmp_path / "ca.crt"
    trust.write_bytes((old / "cert.pem").read_bytes())

    async def run() -> None:
        async with served(old) as port:
            info = kopf.ConnectionInfo(server=f"https://localhost:{port}", ca_path=str(trust))
            async with open_session(info) as session:
                assert (await session.get("/version")).ok
                async with served(new) as other:
                    url = f"https://localhost:{other}/version"
                    with pytest.raises(aiohttp.ClientSSLError):
                        await session.get(url)
                    trust.write_bytes((new / "cert.pem").read_bytes())
                    assert (await session.get(url)).ok
                async with served(foreign) as other:
                    with pytest.raises(aiohttp.ClientSSLError):
                        await session.get(f"https://localhost:{other}/version")

    asyncio.run(run())


def test_an_outage_begins_with_the_first_request_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the time of a request that a frozen API server lets wait, and no time in which others succeed."""
    now = 0.0
    monkeypatch.setattr("tokenbucket.apiserver.connection.time.monotonic", lambda: now)
    answers = Answers()
    answers.add("GET", 200)
    now = 40.0
    answers.add("GET", 0, began_at=10.0)
    now = 70.0
    answers.add("PUT", 0, began_at=40.0)
    now = 75.0
    answers.add("GET", 200)
    assert answers.outage == Outage(10, 75)
    now = 100.0
    answers.add("GET", 200)
    answers.add("GET", 0, began_at=80.0)
    now = 101.0
    answers.add("PATCH", 409)
    assert answers.outage == Outage(10, 75, later_s=1), "a short one only counts"
    for method, status in (("PATCH", 503), ("GET", 403), ("GET", 404), ("GET", 429)):
        answers.add(method, status)
        now += 30.0
        answers.add("GET", 200)
    assert answers.outage.total_s == 66, "a rejected write or read is no outage"
