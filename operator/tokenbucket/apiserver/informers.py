"""Keep the stores of a process up to date: start and supervise its watches, and list all objects regularly.

A watch can miss an event, and a list repairs that. Agent and controller use this module.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from yarl import URL

from tokenbucket.apiserver.client import Client, attempt
from tokenbucket.apiserver.watch import Watch

_RELIST_S = 300.0
_DOUBT_S = 2.0
"""Shortest interval of checks for stores whose last list is doubtful. It doubles while a doubt remains."""


def relist_interval_s() -> float:
    """Return 300 s with a jitter of half of it: thousands of agents must not list at the same moment."""
    return _RELIST_S * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


class Informers:
    """The watches of a process."""

    def __init__(self, *watches: Watch) -> None:
        self.watches = watches

    def start(self, delay_s: Callable[[], float] = lambda: 0.0) -> None:
        """Start all watches. They wait ``delay_s()`` first. Raises UnsupportedError without credentials."""
        for watch in self.watches:
            watch.start(delay_s)

    def stop(self) -> None:
        """Stop all watches."""
        for watch in self.watches:
            watch.stop()

    @property
    def synced(self) -> bool:
        """Return whether all stores have received a first list."""
        return all(watch.store.synced.is_set() for watch in self.watches)

    def liveness_error(self) -> str:
        """Return the watches that have ended, as text. Empty if all of them run."""
        dead = [str(watch) for watch in self.watches if not watch.alive]
        return f"not watching: {', '.join(dead)}" if dead else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return the problems of all watches that do not work."""
        return tuple(watch.problem for watch in self.watches if watch.problem)

    def contacts(self) -> dict[str, float | None]:
        """Return the Unix time of the last contact with the API server for each kind of object.

        If there are two watches of one kind, return the older time.
        """
        now_s, now = time.time(), time.monotonic()
        return {
            str(watch): now_s - (now - watch.contact_at) if watch.contact_at > 0 else None
            for watch in sorted(self.watches, key=lambda watch: -watch.contact_at)
        }

    def listed(self, url: URL, content: Mapping[str, Any]) -> None:
        """Store a list that a client received."""
        for watch in self.watches:
            watch.listed(url, content)

    async def relist(self, client: Client) -> None:
        """List doubtful kinds soon and others regularly, until it is canceled.

        A list of one kind that is older than before can mean that all kinds were restored from a backup.
        """
        due, pause_s = time.monotonic() + relist_interval_s(), _DOUBT_S
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            all_due = time.monotonic() > due
            if any(watch.store.older for watch in self.watches):
                for watch in self.watches:
                    await attempt("read storage version", watch.check_storage(client))
            for watch in self.watches:
                if (all_due and not watch.rewritten) or watch.store.doubtful or watch.store.older:
                    await attempt("list", watch.relist(client))
            doubt = any(watch.store.doubtful or watch.store.older for watch in self.watches)
            pause_s = min(2 * pause_s, _RELIST_S) if doubt else _DOUBT_S
            if all_due:
                due = time.monotonic() + relist_interval_s()


async def run_until_first(*work: Coroutine[Any, Any, object]) -> None:
    """Run until one of the coroutines ends, and cancel the others. Raises its exception."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    ended, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in ended:
        task.result()
