"""The CNI result cache."""

from __future__ import annotations

import errno
import json
import os
import select
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket import cni as module
from tokenbucket.cni import CniResults, parse
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
    namespace: str | None = None,
) -> Path:
    arguments = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web"]]
    inside = [{"name": interface, "sandbox": namespace}] if namespace else []
    content = {
        "kind": "cniCacheV1",
        "containerId": sandbox,
        "ifName": interface,
        "networkName": "pods",
        "cniArgs": [*arguments, ["K8S_POD_UID", uid]],
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "veth0"}, *inside],
            "ips": [{"address": address} for address in addresses],
        },
    }
    path = folder / f"pods-{sandbox}-{interface}"
    path.write_text(json.dumps(content))
    os.utime(path, ns=(written, written))
    return path


def found(cache: CniResults, pod: PodId = WEB) -> list[frozenset]:
    """Read the cache. Return the addresses of each sandbox of a pod."""
    cache.drain()
    cache.refresh()
    return [each.addresses for each in cache.of(pod)]


def addresses(*texts: str) -> frozenset:
    return frozenset(ip_address(text) for text in texts)


def test_a_sandbox_has_the_addresses_of_all_its_interfaces(cache: CniResults, tmp_path: Path) -> None:
    """Include both families, and each network that it is attached to."""
    write(tmp_path, "10.0.0.5/24", "fd00::5/64")
    write(tmp_path, "10.9.0.5/24", interface="net1")
    write(tmp_path, "127.0.0.1/8", "::1/128", interface="lo")
    assert found(cache) == [addresses("10.0.0.5", "fd00::5", "10.9.0.5")]


@pytest.mark.parametrize("newest", ["old", "new"])
def test_file_times_have_no_effect(cache: CniResults, tmp_path: Path, newest: str) -> None:
    """Use all sandboxes as evidence, because clocks step and backups restore files."""
    write(tmp_path, "10.0.0.6/24", sandbox="new", written=2 if newest == "new" else 1)
    write(tmp_path, "10.0.0.5/24", sandbox="old", written=2 if newest == "old" else 1)
    assert found(cache) == [addresses("10.0.0.6"), addresses("10.0.0.5")]


def test_a_successor_of_the_same_name_is_another_pod(cache: CniResults, tmp_path: Path) -> None:
    """Compare uids."""
    write(tmp_path, "10.0.0.5/24")
    write(tmp_path, "10.0.0.6/24", sandbox="b", uid="uid-2")
    assert found(cache, PodId("shop", "web", "uid-2")) == [addresses("10.0.0.6")]


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["/var/run/netns/cni-1"], "cni-1"),
        (["/run/netns/cni-1"], "cni-1"),
        (["/proc/7/ns/net"], ""),
        (["/run/netns/.."], ""),
        (["/run/netns/cni-1/x"], ""),
        (["/run/netns/cni-1", "/run/netns/cni-2"], ""),
    ],
)
def test_the_name_of_a_namespace_is_evidence(
    cache: CniResults, tmp_path: Path, paths: list[str], name: str
) -> None:
    """Ignore paths of processes, whose numbers are reused."""
    for number, path in enumerate(paths):
        write(tmp_path, "10.0.0.5/24", interface=f"eth{number}", namespace=path)
    cache.refresh()
    assert [each.namespace for each in cache.of(WEB)] == [name]


def test_changes_of_the_folder_are_seen(cache: CniResults, tmp_path: Path) -> None:
    """Make the descriptor readable, and remove deleted results."""
    cache.refresh()
    path = write(tmp_path, "10.0.0.5/24")
    assert found(cache) == [addresses("10.0.0.5")]
    write(tmp_path, "10.0.0.7/24")
    assert found(cache) == [addresses("10.0.0.7")]
    path.write_text("{")
    assert found(cache) == [], "torn"
    write(tmp_path, "10.0.0.8/24")
    assert found(cache) == [addresses("10.0.0.8")]
    path.unlink()
    assert found(cache) == []


def test_a_folder_that_is_replaced_is_read_and_watched(tmp_path: Path) -> None:
    """Replace it as a restored backup does."""
    folder = tmp_path / "results"
    folder.mkdir()
    with closing(CniResults(folder)) as cache:
        write(folder, "10.0.0.5/24")
        assert found(cache) == [addresses("10.0.0.5")]
        folder.rename(tmp_path / "backup")
        folder.mkdir()
        write(folder, "10.0.0.6/24")
        assert found(cache) == [addresses("10.0.0.6")]
        write(folder, "10.0.0.7/24")
        assert select.select([cache], [], [], 10)[0]
        assert found(cache) == [addresses("10.0.0.7")]


def test_the_cost_of_an_event_does_not_grow_with_leaked_results(
    cache: CniResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change one file, and read one file."""
    for number in range(50):
        write(tmp_path, "10.0.0.5/24", sandbox=f"leaked-{number}", uid=f"uid-{number}")
    cache.refresh()
    opened: list[object] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(path) or real(path, *rest))
    monkeypatch.setattr(Path, "iterdir", failing(errno.EIO))
    write(tmp_path, "10.0.0.6/24", sandbox="new")
    opened.clear()
    assert addresses("10.0.0.6") in found(cache)
    assert set(opened) == {tmp_path / "pods-new-eth0"}
    opened.clear()
    cache.refresh()
    assert opened == []


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
        "[" * 100_000,
        (
            '{"kind": "cniCacheV1", "containerId": "a", "cniArgs": [["K8S_POD_NAMESPACE", []],'
            ' ["K8S_POD_NAME", "b"]], "result": {}}'
        ),
        (
            '{"kind": "cniCacheV1", "containerId": "a", "cniArgs": [["K8S_POD_NAMESPACE", "a"],'
            ' ["K8S_POD_NAME", "b"]], "result": {"ips": [{"address": "nonsense"}]}}'
        ),
    ],
)
def test_an_invalid_file_does_not_affect_others(cache: CniResults, tmp_path: Path, text: str) -> None:
    """Read half-written files again when they change."""
    broken = tmp_path / "broken"
    broken.write_text(text)
    write(tmp_path, "10.0.0.5/24")
    assert found(cache) == [addresses("10.0.0.5")]


def test_a_named_pipe_does_not_block(cache: CniResults, tmp_path: Path) -> None:
    """Do not wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    write(tmp_path, "10.0.0.5/24")
    assert found(cache) == [addresses("10.0.0.5")]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = ("kind", "containerId", "cniArgs", "result", "ips", "address", "interfaces", "sandbox", "netns")


@given(data=st.data())
def test_any_content_of_a_result_is_accepted(data: st.DataObject) -> None:
    """Generate any field values, and cut files anywhere."""
    content: dict[str, Any] = {
        "kind": "cniCacheV1",
        "containerId": "a",
        "netns": "/run/netns/a",
        "cniArgs": [["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "b"], ["K8S_POD_UID", "c"]],
        "result": {
            "interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}],
            "ips": [{"address": "10.0.0.5/24"}],
        },
    }
    content["cniArgs"][data.draw(st.integers(0, 2)) :] = data.draw(st.lists(_JSON, max_size=2))
    parts = (content, content["result"], content["result"]["ips"][0], content["result"]["interfaces"][0])
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.sampled_from(_FIELDS))] = data.draw(_JSON)
    text = json.dumps(content).encode()
    parsed = parse(text[: data.draw(st.integers(0, len(text)))])
    if parsed:
        assert {type(each) for each in (parsed.pod.namespace, parsed.pod.name, parsed.pod.uid)} == {str}
        hash(parsed)


@given(st.binary(max_size=200))
def test_any_bytes_of_a_result_are_accepted(content: bytes) -> None:
    """Expect any bytes from a disk."""
    parse(content)


def test_a_folder_that_appears_later_is_read(tmp_path: Path) -> None:
    """Let the runtime create it with the first pod."""
    with closing(CniResults(tmp_path / "results")) as cache:
        assert found(cache) == []
        (tmp_path / "results").mkdir()
        write(tmp_path / "results", "10.0.0.5/24")
        assert found(cache) == [addresses("10.0.0.5")]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number"), [("__init__", errno.EMFILE), ("add_watch", errno.ENOSPC)], ids=["none", "full"]
)
def test_the_cache_is_read_without_inotify(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    function: str,
    number: int,
) -> None:
    """Log one line, and receive events when an instance is free again."""
    monkeypatch.setattr(module.INotify, function, failing(number))
    results = CniResults(tmp_path)
    try:
        write(tmp_path, "10.0.0.5/24")
        for _ in range(2):
            assert found(results) == [addresses("10.0.0.5")]
        assert [record.message for record in caplog.records] == ["CNI result cache not watched"]
        monkeypatch.undo()
        results.refresh()
        write(tmp_path, "10.0.0.6/24")
        assert select.select([results], [], [], 10)[0]
        results.drain()
        assert not select.select([results], [], [], 0)[0]
    finally:
        results.close()


def test_an_unreadable_folder_keeps_its_last_results(
    cache: CniResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Keep limits when a disk fails."""
    write(tmp_path, "10.0.0.5/24")
    cache.refresh()
    monkeypatch.setattr(Path, "iterdir", failing(errno.EIO))
    for _ in range(2):
        cache.reread()
        assert found(cache) == [addresses("10.0.0.5")]
    assert [record.message for record in caplog.records] == ["CNI result cache not read"]
