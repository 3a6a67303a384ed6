"""The CNI result cache."""

from __future__ import annotations

import errno
import json
import os
import select
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tokenbucket import cni as module
from tokenbucket.cni import CniResults
from tokenbucket.core.api.pod import PodId

WEB = PodId("shop", "web", "uid-1")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CniResults]:
    results = CniResults(tmp_path)
    yield results
    results.close()


def write(
    folder: Path,
    *addresses: str,
    sandbox: str = "a",
    interface: str = "eth0",
    uid: str = "uid-1",
    written: int = 1,
) -> Path:
    arguments = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web"]]
    content = {
        "kind": "cniCacheV1",
        "containerId": sandbox,
        "ifName": interface,
        "networkName": "pods",
        "cniArgs": [*arguments, ["K8S_POD_UID", uid]],
        "result": {"cniVersion": "1.0.0", "ips": [{"address": address} for address in addresses]},
    }
    path = folder / f"pods-{sandbox}-{interface}"
    path.write_text(json.dumps(content))
    os.utime(path, ns=(written, written))
    return path


def addresses(*texts: str) -> frozenset:
    return frozenset(ip_address(text) for text in texts)


def test_a_pod_has_the_addresses_of_all_its_interfaces(cache: CniResults, tmp_path: Path) -> None:
    """Those of both families, of each network that it is attached to."""
    write(tmp_path, "10.0.0.5/24", "fd00::5/64")
    write(tmp_path, "10.9.0.5/24", interface="net1")
    write(tmp_path, "127.0.0.1/8", "::1/128", interface="lo")
    assert cache.read() == {WEB: addresses("10.0.0.5", "fd00::5", "10.9.0.5")}


def test_the_newest_sandbox_counts(cache: CniResults, tmp_path: Path) -> None:
    """A sandbox that was lost may have left its file."""
    write(tmp_path, "10.0.0.6/24", sandbox="new", written=2)
    write(tmp_path, "10.0.0.5/24", sandbox="old", written=1)
    assert cache.read() == {WEB: addresses("10.0.0.6")}


def test_a_successor_of_the_same_name_is_another_pod(cache: CniResults, tmp_path: Path) -> None:
    """It has another uid."""
    write(tmp_path, "10.0.0.5/24")
    write(tmp_path, "10.0.0.6/24", sandbox="b", uid="uid-2")
    assert cache.read()[PodId("shop", "web", "uid-2")] == addresses("10.0.0.6")


def test_what_changes_is_seen(cache: CniResults, tmp_path: Path) -> None:
    """The descriptor becomes readable, and what has gone is gone."""
    cache.read()
    path = write(tmp_path, "10.0.0.5/24")
    cache.drain()
    assert cache.read() == {WEB: addresses("10.0.0.5")}
    write(tmp_path, "10.0.0.7/24", written=3)
    assert cache.read() == {WEB: addresses("10.0.0.7")}
    path.unlink()
    assert cache.read() == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"kind": "other"}',
        '{"kind": "cniCacheV1"}',
        '{"kind": "cniCacheV1", "cniArgs": [["K8S_POD_NAMESPACE"]]}',
        (
            '{"kind": "cniCacheV1", "containerId": "a", "cniArgs": [["K8S_POD_NAMESPACE", "a"],'
            ' ["K8S_POD_NAME", "b"]], "result": {"ips": [{"address": "nonsense"}]}}'
        ),
    ],
)
def test_a_file_that_is_no_result_harms_no_other(cache: CniResults, tmp_path: Path, text: str) -> None:
    """Half-written files are among them; they are read again when they change."""
    broken = tmp_path / "broken"
    broken.write_text(text)
    write(tmp_path, "10.0.0.5/24")
    assert cache.read() == {WEB: addresses("10.0.0.5")}


def test_a_folder_that_comes_later_is_read(tmp_path: Path) -> None:
    """The runtime makes it with the first pod."""
    results = CniResults(tmp_path / "results")
    try:
        assert results.read() == {}
        (tmp_path / "results").mkdir()
        write(tmp_path / "results", "10.0.0.5/24")
        assert results.read() == {WEB: addresses("10.0.0.5")}
    finally:
        results.close()


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number"), [("__init__", errno.EMFILE), ("add_watch", errno.ENOSPC)], ids=["none", "full"]
)
def test_without_inotify_the_cache_is_read_all_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    function: str,
    number: int,
) -> None:
    """Any process of root can use it up. One line says so, and events come when there is some again."""
    monkeypatch.setattr(module.INotify, function, failing(number))
    results = CniResults(tmp_path)
    try:
        write(tmp_path, "10.0.0.5/24")
        for _ in range(2):
            results.drain()
            assert results.read() == {WEB: addresses("10.0.0.5")}
        assert [record.message for record in caplog.records] == ["CNI result cache not watched"]
        monkeypatch.undo()
        results.read()
        write(tmp_path, "10.0.0.6/24")
        assert select.select([results], [], [], 10)[0]
        results.drain()
        assert not select.select([results], [], [], 0)[0]
    finally:
        results.close()


def test_a_folder_that_cannot_be_read_says_what_it_said_before(
    cache: CniResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fails is no reason to stop limiting."""
    write(tmp_path, "10.0.0.5/24")
    cache.read()
    monkeypatch.setattr(Path, "iterdir", failing(errno.EIO))
    for _ in range(2):
        assert cache.read() == {WEB: addresses("10.0.0.5")}
    assert [record.message for record in caplog.records] == ["CNI result cache not read"]
