"""A folder of manifests with any content."""

from __future__ import annotations

import errno
import os
import select
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.api.test_parse_policy import document
from tokenbucket.agent import source as module
from tokenbucket.agent.source import Folder, FolderSource
from tokenbucket.manifests import MAX_BYTES, parse_text

POLICY = yaml.safe_dump(document())
POD = "kind: Pod\nmetadata: {name: web-0, namespace: shop}\nstatus: {podIP: 10.0.0.1}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def write(folder: Folder, name: str, text: str) -> Path:
    path = folder.path / name
    path.write_text(text)
    return path


def test_files_of_several_documents_and_lists_are_read(folder: Folder) -> None:
    """Accept YAML, JSON, and the output of kubectl get -o yaml."""
    write(folder, "a.yaml", f"{POLICY}---\n{POD}---\n")
    write(folder, "b.json", '{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "db-0"}}]}')
    write(folder, "notes.txt", "not for us")
    write(folder, ".hidden.yaml", "nor: this")
    found = folder.read()
    assert [str(policy) for policy in found.policies] == ["shop/web"]
    assert {str(pod.id) for pod in found.pods} == {"shop/web-0", "default/db-0"}
    assert found.errors == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("a: &a [1]\nb: *a", "aliases are not supported"),
        ("[" * 100, "more than 32 nested levels"),
        ("x" * (MAX_BYTES + 1), "is larger than"),
        ("kind: Pod\nkind: Pod", "line 2: key 'kind' is duplicate"),
        ("a: !!python/object:os.system x", "tag"),
        ("kind: Secret", "kind 'Secret' is not supported"),
        ("- 1\n- 2", "kind None is not supported"),
        ("42", "kind None is not supported"),
        ("? [a]\n: b", "cannot be read"),
        ("a: 0x_", "cannot be read"),
        ("\x01", "is not YAML"),
    ],
)
def test_an_invalid_file_is_named_and_the_others_apply(folder: Folder, text: str, message: str) -> None:
    """Return one message per document, with the name of the file."""
    write(folder, "good.yaml", POLICY)
    path = write(folder, "wrong.yaml", text)
    found = folder.read()
    assert len(found.policies) == 1
    assert found.errors[0].startswith(f"{path}: ")
    assert message in found.errors[0]


def test_a_yaml_bomb_is_harmless(folder: Folder) -> None:
    """Parse nine lines that expand to a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    write(folder, "bomb.yaml", "\n".join(lines))
    assert "aliases are not supported" in folder.read().errors[0]


def test_a_kind_that_is_not_a_string_is_an_error() -> None:
    """Keep the agent running."""
    assert parse_text(b"kind: [a]\n", "x").errors


def test_of_two_objects_of_one_name_the_first_counts(folder: Folder) -> None:
    """Report the second as an error."""
    write(folder, "a.yaml", POLICY)
    write(folder, "b.yaml", POLICY.replace("100M", "1M"))
    found = folder.read()
    assert [policy.limits["ingress"].rate.bits_per_s for policy in found.policies] == [100_000_000]
    assert "b.yaml: TokenBucketPolicy shop/web is a duplicate" in found.errors[0]


def test_a_file_that_becomes_invalid_keeps_its_last_valid_documents(folder: Folder) -> None:
    """Keep them until the file is valid again or deleted."""
    path = write(folder, "a.yaml", f"{POLICY}---\n{POD}")
    assert len(folder.read().policies) == 1
    write(folder, "a.yaml", "spec: [")
    found = folder.read()
    assert (len(found.policies), len(found.pods), len(found.errors)) == (1, 1, 1)
    assert len(folder.read().policies) == 1, "also when nothing has changed since"
    write(folder, "a.yaml", POD)
    assert folder.read().policies == ()
    path.unlink()
    assert folder.read().pods == ()


NAMESPACE = "kind: Namespace\nmetadata: {name: shop}\n"
NUMBERED = "kind: Pod\nmetadata: {name: web-%d, namespace: shop}\nstatus: {podIP: 10.0.0.1}\n"


def test_a_document_that_is_always_invalid_keeps_no_other(folder: Folder) -> None:
    """Remove a deleted document beside it, and the address of a replaced pod."""
    policy = yaml.safe_dump(document())
    write(folder, "a.yaml", f"{NAMESPACE}---\n{policy}---\n{NUMBERED % 1}")
    before = folder.read()
    assert (len(before.policies), len(before.errors)) == (1, 1)
    write(folder, "a.yaml", f"{NAMESPACE}---\n{NUMBERED % 2}")
    after = folder.read()
    assert (after.policies, [each.id.name for each in after.pods]) == ((), ["web-2"])


@pytest.mark.parametrize(
    ("right", "wrong"), [("rate", "rat"), ("name: web", "name: We_b"), ("kind: TokenB", "kind: T0kenB")]
)
def test_a_document_that_becomes_invalid_keeps_its_last_valid_version(
    folder: Folder, right: str, wrong: str
) -> None:
    """Break any of its fields."""
    policy = yaml.safe_dump(document())
    write(folder, "a.yaml", f"{policy}---\n{NUMBERED % 1}")
    [previous] = folder.read().policies
    assert right in policy
    write(folder, "a.yaml", f"{policy.replace(right, wrong)}---\n{NUMBERED % 1}")
    now = folder.read()
    assert (now.policies, len(now.errors)) == ((previous,), 1)


def test_an_unreadable_file_is_an_error_and_no_crash(folder: Folder) -> None:
    """Try a folder, a pipe without a writer, an endless device, and a dangling link."""
    (folder.path / "folder.yaml").mkdir()
    os.mkfifo(folder.path / "pipe.yaml")
    (folder.path / "zeros.yaml").symlink_to("/dev/zero")
    (folder.path / "dangling.yaml").symlink_to("/nowhere")
    write(folder, "good.yaml", POLICY)
    found = folder.read()
    assert len(found.policies) == 1
    assert len(found.errors) == 3


def test_a_change_within_one_tick_of_the_clock_is_seen(folder: Folder) -> None:
    """Replace a file by one of the same size and time."""
    path = write(folder, "a.yaml", POLICY)
    folder.read()
    times = path.stat()
    other = write(folder, ".new", POLICY.replace("100M", "200M"))
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(path)
    assert folder.read().policies[0].limits["ingress"].rate.bits_per_s == 200_000_000


@given(st.binary())
def test_any_bytes_yield_documents_or_errors(text: bytes) -> None:
    parse_text(text, "fuzz")


TYPES = ("bool", "int", "float", "null", "binary", "timestamp", "set", "omap", "pairs", "map", "seq", "str")


@given(
    st.sampled_from(["", "!", "!x", "!!python/name:os.system", *(f"!!{each}" for each in TYPES)]),
    st.one_of(
        st.text("0123456789:._-+eExXobT=<~", max_size=8), st.sampled_from(['""', "{a: b}", "[a]", "[[a, b]]"])
    ),
    st.sampled_from(["a: {} {}", "- {} {}", "? {} {}", "{} {}"]),
)
def test_no_value_of_any_type_raises_anything(tag: str, value: str, place: str) -> None:
    """Parse values that do not match their tags, for which PyYAML raises KeyError, for example."""
    parse_text(place.format(tag, value).encode(), "fuzz")


@pytest.mark.parametrize("digits", ["0x" + "f" * 6000, "9" * 6000, "0b" + "1" * 20000, "1:" * 3000 + "1"])
@pytest.mark.parametrize("place", ["kind: {}", "kind: Pod\nmetadata: {{generation: {}}}", "{}: 1", "- {}"])
def test_a_number_that_python_does_not_write_is_an_error(digits: str, place: str) -> None:
    """The number would end the agent if an error repeated it."""
    assert len(parse_text(place.format(digits).encode(), "x").errors) == 1


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x", '!!float ""', "!!int 5"])
def test_an_explicit_type_is_an_error_that_names_the_line(value: str) -> None:
    """Accept the tag of text."""
    assert parse_text(f"kind: Pod\na: {value}".encode(), "x").errors[0].startswith("x: line 2: tag ")
    assert "tag" not in parse_text(b"kind: !!str Pod\n", "x").errors[0]


def test_a_recreated_folder_is_watched(tmp_path: Path) -> None:
    """Replace the folder as a deployment does."""
    path = tmp_path / "limits"
    path.mkdir()
    with closing(FolderSource(path)) as source:
        path.rmdir()
        path.mkdir()
        source.drain()
        (path / "web.yaml").write_text(POD)
        assert select.select([source], [], [], 10)[0]
        source.drain()
        assert len(source.snapshot().pods) == 1


def test_a_change_of_the_folder_has_its_time_in_one_snapshot(tmp_path: Path) -> None:
    with closing(FolderSource(tmp_path)) as source:
        assert source.snapshot().received_at is None
        before = time.monotonic()
        source.drain()
        received_at = source.snapshot().received_at
        assert received_at is not None
        assert received_at >= before
        assert source.snapshot().received_at is None


@pytest.mark.parametrize(("method", "number"), [("__init__", errno.EMFILE), ("add_watch", errno.ENOSPC)])
def test_a_folder_is_read_without_inotify(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    number: int,
) -> None:
    """Log the exhaustion of inotify once, and read the folder at intervals."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.INotify, method, fail)
    with closing(FolderSource(tmp_path)) as source:
        (tmp_path / "policy.yaml").write_text(POLICY)
        for _ in range(2):
            source.drain()
        assert len(source.snapshot().policies) == 1
    logged = [record.message for record in caplog.records]
    assert logged == ["folder not watched; it is read at intervals"]
