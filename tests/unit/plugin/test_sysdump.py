"""The archive for a bug report: complete, redacted, and written even without some rights."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tokenbucket.apiserver.resources import CONFIG_MAPS, EVENTS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.plugin.exit_codes import PluginExit

SECRETS = ("192.0.2.7", "2001:db8::7", "aa:bb:cc:dd:ee:ff", "hunter2", "0f8fad5b-d9cb-469f-a165-70867728950e")
LOG = {"log": f"limit attached to 192.0.2.7, {SECRETS[1]}, password={SECRETS[3]} {SECRETS[2]} {SECRETS[4]}"}


@pytest.fixture
def release(cluster: FakeApi) -> FakeApi:
    """Provide a release with an agent that has restarted once, and addresses everywhere."""
    cluster.kinds |= {EVENTS}
    env = [{"name": "HTTPS_PROXY", "value": "hunter2"}]
    cluster.put(
        PODS, "agent", "tokenbucket-system",
        metadata={"labels": {"app.kubernetes.io/part-of": "tokenbucket"}, "uid": SECRETS[4]},
        spec={"nodeName": "n1", "containers": [{"name": "agent", "env": env}]},
        status={"podIP": SECRETS[0], "containerStatuses": [{"name": "agent", "restartCount": 1}],
                "initContainerStatuses": [{"name": "mount-bpf", "restartCount": 0}]},
    )  # fmt: skip
    cluster.put(
        NODES,
        "n1",
        metadata={"labels": {"secret": "hunter2"}},
        status={"addresses": [{"address": SECRETS[0]}]},
    )
    cluster.put(REPORTS, "n1", status={"message": f"next hop {SECRETS[1]} {SECRETS[2]}"})
    data = {"enforcement": "Enforce", "config.yaml": "hunter2"}
    labels = {"app.kubernetes.io/part-of": "tokenbucket"}
    cluster.put(CONFIG_MAPS, "tokenbucket", "tokenbucket-system", metadata={"labels": labels}, data=data)
    about = {"kind": "TokenBucketPolicy", "apiVersion": "tokenbucket.dev/v1alpha1", "namespace": "shop"}
    cluster.put(EVENTS, "e", "shop", involvedObject=about, message=f"pod {SECRETS[0]}")
    for _ in range(3):
        cluster.answer(lambda seen: seen.path.endswith("/log"), LOG)
    cluster.answer(lambda seen: seen.path == "/version", {"gitVersion": "v1.36.3"})
    pods = [{"uid": "web-1-uid", "pod": "web-1", "peers": [{"peer": SECRETS[0]}], "limits": []}]
    answer = {"version": 1, "node": "n1", "reconciled": True, "pods": pods}
    cluster.answer(lambda seen: "/proxy/" in seen.path, answer)
    return cluster


def read(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            entry.name.partition("/")[2]: archive.extractfile(entry).read().decode()  # type: ignore[union-attr]
            for entry in archive.getmembers()
        }


def dump(run: Run, tmp_path: Path) -> tuple[Any, dict[str, str]]:
    path = tmp_path / "dump.tar.gz"
    return run("sysdump", "--file", str(path)), read(path)


def test_the_archive_has_all_parts(release: FakeApi, run: Run, tmp_path: Path) -> None:
    done, files = dump(run, tmp_path)
    assert done.code == PluginExit.DONE, done.err
    assert set(files) >= {
        "versions.json", "policies.json", "tokenbucketnodes.json", "nodes.json", "pods.json", "events.json",
        "configmaps-tokenbucket-system.json", "live.json", "problems.txt",
        "logs/tokenbucket-system/agent-mount-bpf.log",
        "logs/tokenbucket-system/agent-agent.log", "logs/tokenbucket-system/agent-agent-previous.log",
    }  # fmt: skip
    assert json.loads(files["versions.json"])["server"] == {"gitVersion": "v1.36.3"}
    assert [each["metadata"]["name"] for each in json.loads(files["policies.json"])] == ["web"]
    assert json.loads(files["live.json"])["pods"][0]["pod"] == "web-1"
    assert len(json.loads(files["events.json"])) == 1
    (config,) = json.loads(files["configmaps-tokenbucket-system.json"])
    assert config["data"]["enforcement"] == "Enforce"


def test_the_archive_has_no_address_and_no_secret(release: FakeApi, run: Run, tmp_path: Path) -> None:
    _, files = dump(run, tmp_path)
    for name, content in files.items():
        for secret in SECRETS:
            assert secret not in name + content
    assert "<ipv4 1>" in files["logs/tokenbucket-system/agent-agent.log"]
    assert "<ipv4 1>" in files["pods.json"]


def test_unreadable_parts_are_named_and_the_others_are_written(
    release: FakeApi, run: Run, tmp_path: Path
) -> None:
    release.fail(lambda seen: seen.path == NODES.path(), 403, "no")
    done, files = dump(run, tmp_path)
    assert done.code == PluginExit.UNKNOWN
    assert "list nodes" in done.err
    assert "list nodes" in files["problems.txt"]
    assert json.loads(files["policies.json"])


def test_a_cluster_without_the_operator_has_an_archive_too(
    cluster: FakeApi, run: Run, tmp_path: Path
) -> None:
    cluster.kinds -= {POLICIES, REPORTS}
    done, files = dump(run, tmp_path)
    assert done.code == PluginExit.UNKNOWN
    assert json.loads(files["policies.json"]) == []


def test_without_any_answer_the_file_stays(cluster: FakeApi, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "dump.tar.gz"
    path.write_text("before")
    cluster.rejects = 500
    done = run("sysdump", "--file", str(path))
    assert done.code == PluginExit.FAILED
    assert "not written" in done.err
    assert path.read_text() == "before"
    assert list(tmp_path.glob("*dump*")) + list(tmp_path.glob(".*dump*")) == [path]


def test_a_failure_leaves_no_partial_archive(
    release: FakeApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenbucket.plugin.sysdump._add", fail)
    folder = tmp_path / "empty"
    folder.mkdir()
    run("sysdump", "--file", str(folder / "dump.tar.gz"))
    assert not list(folder.iterdir())


def test_only_the_owner_can_read_the_archive(release: FakeApi, run: Run, tmp_path: Path) -> None:
    dump(run, tmp_path)
    assert (tmp_path / "dump.tar.gz").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("file", ["/proc/x/y", "/", "/dev/null", "/proc/self/maps/x"])
def test_a_file_that_cannot_be_written_is_an_error(release: FakeApi, run: Run, file: str) -> None:
    done = run("sysdump", "--file", file)
    assert done.code == PluginExit.FAILED
    assert f"{file}: " in done.err
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("lines", ["-1", "x", "1.5"])
def test_the_number_of_lines_is_checked(run: Run, lines: str) -> None:
    assert run("sysdump", f"--log-lines={lines}").code == PluginExit.USAGE


def test_control_characters_of_a_server_do_not_reach_the_terminal(
    release: FakeApi, run: Run, tmp_path: Path
) -> None:
    release.fail(lambda seen: seen.path == NODES.path(), 500, "\x1b[2J")
    done, _ = dump(run, tmp_path)
    assert "list nodes" in done.err or "nodes:" in done.err
    assert "\x1b" not in done.err
