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
_RELIST_REWRITTEN_S = 3600.0
"""Of objects that are written again and again: a list repairs only missed events of deletion."""
_DOUBT_S = 2.0
"""Shortest interval of checks for stores whose last list is doubtful. It doubles while a doubt remains."""


def _next_list(watch: Watch) -> float:
    """Return the time of the next list, with jitter: thousands of agents must not list at the same moment."""
    interval_s = _RELIST_REWRITTEN_S if watch.rewritten else _RELIST_S
    return time.monotonic() + interval_s * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


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
        due, pause_s = [_next_list(watch) for watch in self.watches], _DOUBT_S
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            if any(watch.store.older for watch in self.watches):
                for watch in self.watches:
                    await attempt("read storage version", watch.check_storage(client))
            for number, watch in enumerate(self.watches):
                if watch.store.in_doubt or time.monotonic() > due[number]:
                    await attempt("list", watch.relist(client))
                    due[number] = _next_list(watch)
            doubt = any(watch.store.in_doubt for watch in self.watches)
            pause_s = min(2 * pause_s, _RELIST_S) if doubt else _DOUBT_S


async def run_until_first(*work: Coroutine[Any, Any, object]) -> None:
    """Run until one of the coroutines ends, and cancel the others. Raises its exception."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    ended, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in ended:
        task.result()
