"""Whole passes on a node of the test's own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.agent import queues
from tokenbucket.agent.queues import Queues
from tokenbucket.agent.reconcile import Outcome, Reconciler
from tokenbucket.core.hook import Interface
from tokenbucket.errors import KernelError
from tokenbucket.netlink.filters import LinkFilters
from tokenbucket.netlink.queues import FQ, HANDLE, Root

QUEUE = Interface(7)


class View:
    """A node."""

    def __init__(self, roots: dict[int, Root]) -> None:
        self.roots = roots
        self.invalidated = False
        self.pod_namespaces = self
        self.searched = True
        self.known: dict[int, SimpleNamespace] = {}

    def refresh(self) -> None:
        pass

    def everywhere(self) -> Iterator[tuple[int, dict[int, LinkFilters], dict[int, Root]]]:
        yield 0, {}, self.roots

    @contextmanager
    def changing(self, interface: Interface) -> Iterator[None]:
        assert interface == QUEUE
        yield

    def name_of(self, interface: Interface) -> str:
        return f"veth{interface.ifindex}"

    def invalidate_all(self) -> None:
        self.invalidated = True


def agent(roots: dict[int, Root]) -> tuple[Reconciler, View]:
    """One that has just started, on a node without limits."""
    view = View(roots)
    locks = SimpleNamespace(writing=nullcontext)
    node: Any = (view, SimpleNamespace(read=dict, count=16), None, locks, Queues(available=True))
    return Reconciler(*node), view


def removing_a_queue(monkeypatch: pytest.MonkeyPatch, ending: object) -> tuple[Outcome, View]:
    """A pass of nothing but the removal of a queue, which ends like that."""

    def remove_fq(*_: object) -> object:
        if isinstance(ending, KernelError):
            raise ending
        return ending

    monkeypatch.setattr(queues, "remove_fq", remove_fq)
    reconciler, view = agent(roots={QUEUE.ifindex: Root(QUEUE.ifindex, FQ, HANDLE, held=3)})
    return reconciler.run([], []), view


def test_a_queue_that_holds_packets_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may do so for as long as flows last: nothing is read anew for that, and no pass is incomplete."""
    outcome, view = removing_a_queue(monkeypatch, ending=False)
    assert (outcome.actions, outcome.complete, outcome.waits, view.invalidated) == (0, True, True, False)


def test_an_empty_queue_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left to do."""
    outcome, _ = removing_a_queue(monkeypatch, ending=True)
    assert (outcome.actions, outcome.complete, outcome.waits) == (1, True, False)


def test_a_queue_that_cannot_be_removed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything read anew: what is known of the node may be wrong."""
    outcome, view = removing_a_queue(monkeypatch, ending=KernelError("remove fq", "veth7", errno.EPERM))
    assert (outcome.actions, outcome.complete, view.invalidated) == (0, False, True)
