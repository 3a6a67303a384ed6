"""A cluster leaves nothing on the machine, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import record, teardown
from cluster.box import Box, end_root, open_root, start_guardian
from cluster.cluster import Cluster, find
from cluster.errors import ClusterError
from cluster.identity import Process, identify, wait_gone
from cluster.layout import Layout, layout
from cluster.lifecycle import down
from cluster.waiting import wait_for
from cluster.workloads import pod
from tests.e2e.leftovers import machine, members, networks_of, nothing_is_left


def name_of(pid: int) -> str:
    """Return the name of the program of a process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


@pytest.fixture
def place(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """Provide a place for another cluster. The cluster of the suite has filled the cache."""
    monkeypatch.setenv("TOKENBUCKET_E2E_NAME", "teardown")
    yield layout()
    down(layout())


def start_up() -> subprocess.Popen[str]:
    """Run ``up`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cluster", "up"],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(process: subprocess.Popen[str], arrived: Callable[[], bool]) -> None:
    """Kill ``up`` without a chance to clean up, when ``arrived`` is true."""
    deadline = time.monotonic() + 120
    while not arrived():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_down_leaves_nothing_of_a_cluster_with_pods(place: Layout) -> None:
    """Remove the pods too."""
    before = machine()
    process = start_up()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    cluster = find(place)
    assert cluster is not None
    kubectl = cluster.kubectl
    kubectl.run("wait", "--for=create", "serviceaccount/default")
    kubectl.apply(*(pod(f"on-{node.name}", node.name) for node in cluster.nodes))
    kubectl.wait("condition=Ready", "pod", "--all")
    processes = members(place)
    assert len(processes) > 20
    networks = networks_of(processes)
    assert len(networks) == 1 + 2 * len(cluster.nodes)
    down(place)
    nothing_is_left(place, processes, networks)
    assert machine() == before


@pytest.mark.parametrize("moment", ["record.json", "nodes/node-bridge", "nodes/node-ptp/kubelet.json"])
def test_down_leaves_nothing_of_a_half_made_cluster(place: Layout, moment: str) -> None:
    """Kill ``up`` as soon as it has created the named file."""
    before = machine()
    kill_when(start_up(), (place.root / moment).exists)
    processes = members(place)
    networks = networks_of(processes)
    down(place)
    nothing_is_left(place, processes, networks)
    assert machine() == before


def test_down_leaves_nothing_of_a_cluster_whose_root_was_killed(place: Layout) -> None:
    """Let the kernel end all processes. ``down`` removes cgroups and files."""
    kill_when(start_up(), (place.root / "nodes/node-ptp/kubelet.json").exists)
    processes = members(place)
    found = record.load(place.record)
    assert found is not None
    os.kill(found.boxes["control-plane"].pid, signal.SIGKILL)
    assert find(place) is None
    down(place)
    nothing_is_left(place, processes, networks_of(processes))


def test_down_leaves_nothing_of_a_virtual_machine(place: Layout) -> None:
    """Kill ``up`` while the machine boots."""
    emulated = "qemu-system"
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "up", "--vm"],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    kill_when(
        process,
        lambda: (
            (place.root / "nodes/node-vm/guest.env").exists()
            and any(emulated in name_of(member.pid) for member in members(place))
        ),
    )
    processes = members(place)
    down(place)
    nothing_is_left(place, processes, networks_of(processes))


def test_an_unrecorded_root_box_ends_with_its_creator(cluster: Cluster) -> None:
    """Kill the creator before it starts the box."""
    code = (
        "import os, signal, sys; from pathlib import Path; from cluster.box import start_guardian;"
        f"guardian = start_guardian(Path({str(cluster.programs.pause_program)!r}), dict(os.environ));"
        "print(guardian.process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    maker = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    guardian = identify(int(maker.stdout))
    assert guardian is None or wait_gone(guardian, 5)


def test_down_succeeds_without_a_cluster(place: Layout) -> None:
    """Run it twice."""
    down(place)
    down(place)
    assert teardown.leftovers(place) == []


def test_down_does_not_kill_another_process_with_a_recorded_pid(place: Layout) -> None:
    """Compare the start times."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        process = identify(bystander.pid)
        assert process is not None
        stale = Process(process.pid, process.start_ticks - 1, process.boot)
        record.save(record.Record(guardian=stale, boxes={"control-plane": stale}), place.record)
        down(place)
        assert process.alive()
    finally:
        bystander.kill()
        bystander.wait()


@pytest.fixture
def box(cluster: Cluster, tmp_path: Path) -> Iterator[Box]:
    """Provide an empty root box."""
    programs = cluster.programs
    guardian = start_guardian(programs.pause_program, {"PATH": programs.search_path})
    yield open_root(guardian, "kitchen", tmp_path, {"PATH": programs.search_path})
    end_root(guardian.process)


def test_a_component_that_ends_is_explained_by_its_log(box: Box) -> None:
    """Report it at once, not after the timeout."""
    box.start("oven", ["sh", "-c", "echo no gas; exit 7"])
    with pytest.raises(
        ClusterError, match=re.compile("oven: ended with status 7 before warm.*no gas", re.DOTALL)
    ):
        wait_for(lambda: False, what="warm", among=box.components, component="oven", timeout_s=60)


def test_a_component_that_takes_too_long_is_explained_by_its_log(box: Box) -> None:
    """Keep it running."""
    box.start("oven", ["sh", "-c", "echo lukewarm; sleep 60"])
    with pytest.raises(ClusterError, match=re.compile("oven: warm: not after 0 s.*lukewarm", re.DOTALL)):
        wait_for(lambda: False, what="warm", among=box.components, component="oven", timeout_s=0.3)


@pytest.mark.parametrize("name", ["", ".", "../other", "a/b"])
def test_a_name_that_is_another_path_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Protect the files at this path, which the end of a cluster would remove."""
    monkeypatch.setenv("TOKENBUCKET_E2E_NAME", name)
    with pytest.raises(ClusterError, match="TOKENBUCKET_E2E_NAME"):
        layout()
