"""The search for attachments of an earlier agent in pod namespaces, if a read fails."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from tokenbucket.core.planning.attachment import Hook
from tokenbucket.errors import KernelError
from tokenbucket.netlink import namespaces
from tokenbucket.netlink.filters import Filter, LinkFilters
from tokenbucket.netlink.namespaces import Namespace, numbered_namespaces
from tokenbucket.node import inside_pods
from tokenbucket.node.inside_pods import PodNamespace, PodNamespaces

NAMESPACE = Namespace(111, Path("/run/netns/a"))
WITH_OURS = PodNamespace(NAMESPACE, {2: LinkFilters((Filter(2, Hook.EGRESS, 7, 1),))}, {}, {})
TCX: Any = object()
CONNECTION: Any = None


def failure(number: int = errno.EMFILE) -> KernelError:
    return KernelError("enter", str(NAMESPACE.path), number)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PodNamespaces]:
    """Imitate one namespace, number 5, with the result of each read. The last result repeats."""

    def make(*looks: PodNamespace | KernelError) -> PodNamespaces:
        left = list(looks)

        def look(_: Namespace, _tcx: object, ifindexes: Collection[int], _others: int) -> PodNamespace:
            assert 2 in ifindexes
            found = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(found, KernelError):
                raise found
            return found

        monkeypatch.setattr(inside_pods, "numbered_namespaces", lambda _: {5: NAMESPACE})
        monkeypatch.setattr(inside_pods, "read_pod_namespace", look)
        return PodNamespaces(CONNECTION, TCX, lambda nsid: {5: [2]}[nsid])

    return make


def search(pods: PodNamespaces) -> bool:
    pods.search()
    pods.refresh()
    return pods.searched


def test_a_failed_read_is_repeated(world: Callable[..., PodNamespaces]) -> None:
    """Find a filter whose slot another pod could get."""
    pods = world(failure(), WITH_OURS)
    assert not search(pods)
    assert search(pods)
    assert pods.known == {5: WITH_OURS}


def test_an_unreadable_namespace_does_not_block_slots_for_long(
    world: Callable[..., PodNamespaces],
) -> None:
    """Free slots after three attempts, and read the namespace at each later search."""
    pods = world(failure(), failure(), failure(), WITH_OURS)
    assert [search(pods) for _ in range(3)] == [False, False, True]
    assert pods.known == {}
    assert search(pods)
    assert pods.known == {5: WITH_OURS}


def test_an_agent_without_the_right_to_enter_finds_nothing(world: Callable[..., PodNamespaces]) -> None:
    """Search no further. The marks of slots show where an earlier agent attached filters."""
    assert search(world(failure(errno.EPERM)))


def test_a_namespace_that_cannot_be_read_again_keeps_its_last_state(
    world: Callable[..., PodNamespaces], caplog: pytest.LogCaptureFixture
) -> None:
    """Keep its filters, read it each time, and log one line."""
    later = PodNamespace(NAMESPACE, {}, {}, {})
    pods = world(WITH_OURS, failure(), failure(), later)
    pods.enter(5)
    pods.mark_stale(5)
    for _ in range(2):
        pods.refresh()
        assert pods.known == {5: WITH_OURS}
    assert [record.message for record in caplog.records] == ["namespace not read"]
    pods.refresh()
    assert pods.known == {5: later}


def test_a_shortage_does_not_look_like_the_end_of_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the namespace unsearched if no file descriptor is free."""

    def fail(*_: object) -> int:
        raise failure()

    monkeypatch.setattr(namespaces, "reachable_namespaces", lambda: (NAMESPACE,))
    monkeypatch.setattr(namespaces, "_number_of", fail)
    with pytest.raises(KernelError, match="EMFILE"):
        numbered_namespaces(CONNECTION)


@pytest.mark.parametrize(
    ("nsid", "exists", "reads", "hidden"),
    [
        (5, True, WITH_OURS, False),
        (5, True, failure(errno.EPERM), True),
        (5, False, failure(errno.EPERM), False),
        (6, True, WITH_OURS, True),
        (6, False, WITH_OURS, False),
    ],
    ids=["entered", "no right", "ended", "no path", "no path, ended"],
)
def test_a_namespace_without_a_right_or_a_path_may_have_a_filter(
    world: Callable[..., PodNamespaces],
    monkeypatch: pytest.MonkeyPatch,
    nsid: int,
    exists: bool,  # noqa: FBT001
    reads: PodNamespace | KernelError,
    hidden: bool,  # noqa: FBT001
) -> None:
    """An agent that could enter it may have attached one. Without hostPID, no path leads to it."""
    monkeypatch.setattr(inside_pods, "read_traffic", lambda *_: 0 if exists else None)
    pods = world(reads)
    search(pods)
    assert pods.hide_any({nsid}) is hidden
