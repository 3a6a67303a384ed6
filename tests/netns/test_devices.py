"""Limits of single interfaces, without pods and without an agent, as the proof of concept was used."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2.netlink import rtnl

from tests.netns.agent import (
    PINS,
    Agent,
    acquaint,
    clean,
    free_slots,
    limit_of,
    send,
    status,
    tokenbucket,
    wait,
)
from tests.netns.lab import Lab, Pod, ip, tc
from tests.netns.tokens import Tokens
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.errors import ExitCode, KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import Message
from tokenbucket.node import devices

BOTH = pytest.mark.parametrize("mechanism", ["clsact", pytest.param("tcx", marks=pytest.mark.needs("tcx"))])


@pytest.fixture(autouse=True)
def _freed() -> None:
    free_slots()


@pytest.fixture
def _own_pins() -> Iterator[None]:
    """Use a folder for pins that no other test finds."""
    clean()
    free_slots()
    yield
    clean()


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Provide two pods with resolved addresses of each other."""
    pods = lab.pod("a", ["10.1.1.2/24"]), lab.pod("b", ["10.2.1.2/24"])
    acquaint(*pods)
    return pods


def test_an_interface_is_limited_and_freed(pods: tuple[Pod, Pod]) -> None:
    """Attach a limit by name, change it by another attach, and detach it by name."""
    a, b = pods
    attach = ("attach", "--dev", b.veth, "--direction", "egress", "--packet-rate", "1", "--packet-burst")
    tokenbucket(*attach, "5")
    tokens = Tokens(5)
    assert send(a, b, 50) <= tokens.most
    assert limit_of(b.veth, "egress")["conformPackets"] >= 5
    tokenbucket(*attach, "9")
    assert limit_of(b.veth, "egress")["burstPackets"] == 9
    assert send(a, b, 50) <= tokens.regained, "a change returns no token"
    tokenbucket("detach", "--dev", b.veth)
    assert send(a, b, 50) == 50
    assert status() == []


def test_an_interface_in_another_namespace_is_limited(pods: tuple[Pod, Pod]) -> None:
    """Name the interface as the pod sees it. Show and detach the limit from outside."""
    a, b = pods
    tokenbucket(
        *("attach", "--dev", "eth0", "--netns", b.netns, "--direction", "ingress"),
        *("--packet-rate", "1", "--packet-burst", "5"),
    )
    tokens = Tokens(5)
    assert send(a, b, 50) <= tokens.most
    assert limit_of("eth0")["hooks"] == [
        {"interface": "eth0", "hook": "ingress", "attachment": "clsact/ingress"}
    ]
    tokenbucket("detach", "--all")
    assert send(a, b, 50) == 50


def test_detach_all_does_not_depend_on_links_and_addresses_of_pods(
    pods: tuple[Pod, Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command does not read state that a pod can change all the time.
    A pod cannot keep other pods limited.
    """
    a, b = pods
    attach = ("--direction", "ingress", "--packet-rate", "1", "--packet-burst", "5")
    tokenbucket("attach", "--dev", a.veth, *attach)
    tokenbucket("attach", "--dev", "eth0", "--netns", b.netns, *attach)
    dump = Connection.dump

    def interrupted(connection: Connection, kind: int, body: bytes, subject: str) -> list[Message]:
        if kind in {rtnl.RTM_GETLINK, rtnl.RTM_GETADDR}:
            raise KernelError("list", subject, errno.EINTR)
        return dump(connection, kind, body, subject)

    monkeypatch.setattr(Connection, "dump", interrupted)
    assert devices.detach_all(PINS) == 2


def test_detach_all_removes_an_unused_clsact(pods: tuple[Pod, Pod]) -> None:
    """Detaching one limit keeps clsact, because adding clsact drops packets of a running pod.

    Detaching all limits removes clsact, unless another program has a filter in it.
    """
    a, b = pods
    for pod in pods:
        tokenbucket("attach", "--dev", pod.veth, "--direction", "ingress", "--packet-rate", "1")
        tokenbucket("detach", "--dev", pod.veth)
        assert "clsact" in tc("qdisc", "show", "dev", pod.veth)
    tc("filter", "add", "dev", b.veth, "ingress", "bpf", "direct-action", "bytecode", "1,6 0 0 4294967295")
    tokenbucket("detach", "--all")
    assert "clsact" not in tc("qdisc", "show", "dev", a.veth)
    assert "clsact" in tc("qdisc", "show", "dev", b.veth)


@pytest.mark.usefixtures("_own_pins")
def test_a_limit_of_another_layout_version_stays_until_it_is_removed(
    pods: tuple[Pod, Pod], tmp_path: Path
) -> None:
    """The agent of an upgrade ignores such a limit. The commands of the upgrade change it."""
    a, b = pods
    attach = ("attach", "--dev", b.veth, "--direction", "egress", "--packet-rate", "1", "--packet-burst")
    tokenbucket(*attach, "5")
    PINS.folder.rename(PINS.root / "v0")
    agent = Agent(tmp_path)
    try:
        agent.start()
        # Each reconcile run reads the folder first, so the first one has ended when the second one logs.
        for number, text in enumerate(("spec: [", "- 1"), 1):
            agent.write("wrong.yaml", text)
            wait(lambda number=number: len(agent.events("invalid document")) == number, agent.log)
        tokens = Tokens(5)
        arrived = send(a, b, 50)
        assert arrived <= tokens.most
    finally:
        agent.stop()
    arrived += send(a, b, 50)
    assert arrived <= tokens.most
    tokenbucket(*attach, "9")
    assert arrived + send(a, b, 50) <= tokens.most, "the limit keeps its bucket"
    tokenbucket("detach", "--dev", b.veth)
    assert send(a, b, 50) == 50
    tokenbucket(*attach, "5")
    shutil.rmtree(PINS.root / "v0", ignore_errors=True)
    PINS.folder.rename(PINS.root / "v0")
    tokenbucket("attach", "--dev", a.veth, "--direction", "egress", "--packet-rate", "1")
    tokenbucket("detach", "--dev", b.veth)
    assert send(a, b, 50) == 50


@pytest.mark.parametrize(
    ("arguments", "status_code", "message"),
    [
        (("--rate", "1Mbps"), 2, "did you mean 1M?"),
        (("--rate", "100m"), 2, "did you mean 100M?"),
        ((), 2, "is missing"),
        (("--rate", "1M", "--burst", "1"), 2, "from 64 to 4Gi"),
        (("--rate", "1M", "--netns", "nowhere"), 1, "No such file"),
    ],
)
def test_wrong_options_name_the_fix(
    pods: tuple[Pod, Pod], arguments: tuple[str, ...], status_code: int, message: str
) -> None:
    """The command attaches nothing."""
    done = tokenbucket("attach", "--dev", pods[0].veth, "--direction", "egress", *arguments, check=False)
    assert (done.returncode, message in done.stderr) == (status_code, True), done.stderr
    assert "tokenbucket" not in tc("filter", "show", "dev", pods[0].veth, "egress")


LIMIT = ("--direction", "egress", "--packet-rate", "1", "--packet-burst", "5")


_PEERS = itertools.count()


def plug(lab: Lab, name: str) -> None:
    """Provide an interface of the node whose other end is on the node too."""
    lab.link(name, "veth", "peer", "name", f"peer{next(_PEERS)}")


def slot_of(device: str) -> int:
    """Return the slot that the filter of an interface names."""
    limits = (limit for limit in status() if any(hook["interface"] == device for hook in limit["hooks"]))
    return next(limit["slot"] for limit in limits)


@BOTH
def test_a_limit_follows_its_interface_to_a_new_name(lab: Lab, mechanism: str) -> None:
    """The limit keeps its slot until it is detached by the new name. No other limit gets its tokens."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", mechanism)
    before = slot_of("eth1")
    ip("link", "set", "eth1", "down")
    ip("link", "set", "eth1", "name", "wan0")
    gone = tokenbucket("detach", "--dev", "eth1", check=False)
    assert (gone.returncode, "detach --dev wan0" in gone.stderr) == (4, True), gone.stderr
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT)
    assert slot_of("eth1") != slot_of("wan0") == before
    assert tokenbucket("detach", "--dev", "wan0").stdout == "wan0: limit removed\n"
    assert [limit["hooks"][0]["interface"] for limit in status()] == ["eth1"]
    tokenbucket("detach", "--dev", "eth1")
    assert status() == []


@BOTH
@pytest.mark.parametrize("what", ["recreated", "moved"])
def test_a_new_interface_does_not_inherit_a_limit_by_its_name(lab: Lab, what: str, mechanism: str) -> None:
    """A new interface with the same name has no limit. A new limit on it starts with a full bucket."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", mechanism)
    if what == "moved":
        ip("link", "set", "eth1", "netns", lab.pod("a", wire=False).netns)
    else:
        ip("link", "delete", "eth1")
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT)
    [limit] = status()
    assert [hook["interface"] for hook in limit["hooks"]] == ["eth1"]


def tcx_programs(pod: Pod, name: str) -> tuple[object, ...]:
    """Return the programs by tcx on an interface that is in a pod's namespace."""
    number = json.loads(ip("-json", "link", "show", "dev", name, netns=pod.netns))[0]["ifindex"]
    return pod.inside(lambda: tuple(each for hook in Hook for each in Tcx(PINS).read(number, hook)))


@pytest.mark.needs("tcx")
@pytest.mark.parametrize("what", ["moved", "moved and replaced", "renamed and moved"])
def test_detach_frees_no_slot_that_a_moved_interface_names(lab: Lab, what: str) -> None:
    """Detach the program that followed its interface: the next limit gets the slot, and must not share it."""
    plug(lab, "eth1")
    plug(lab, "eth2")
    pod, name = lab.pod("a", wire=False), "wan0" if "renamed" in what else "eth1"
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", "tcx")
    ip("link", "set", "eth1", "down", "name", name)
    ip("link", "set", name, "netns", pod.netns)
    if what == "moved and replaced":
        plug(lab, "eth1")
    assert tcx_programs(pod, name), "the program moved too"
    assert tokenbucket("detach", "--dev", "eth1").stdout == "eth1: limit removed\n"
    assert tcx_programs(pod, name) == ()
    tokenbucket("attach", "--dev", "eth2", *LIMIT)
    assert [limit["device"] for limit in status()] == ["eth2"]


def test_a_limit_without_its_filter_is_attached_again(lab: Lab) -> None:
    """Another program removed the filter. The limit keeps its slot and its tokens."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", "clsact")
    before = slot_of("eth1")
    tc("qdisc", "delete", "dev", "eth1", "clsact")
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", "clsact")
    assert [limit["slot"] for limit in status()] == [before]


def test_limits_of_ended_namespaces_are_freed(lab: Lab) -> None:
    """Another namespace may get the same number, and an interface with the same index."""
    pod = lab.pod("a", ["10.2.1.2/24"])
    tokenbucket("attach", "--dev", "eth0", "--netns", pod.netns, *LIMIT)
    lab.delete(pod)
    lab.pod("b", ["10.2.1.2/24"])
    plug(lab, "eth2")
    tokenbucket("attach", "--dev", "eth2", *LIMIT)
    assert [limit["device"] for limit in status()] == ["eth2"]


def test_an_agent_frees_the_limits_of_ended_interfaces(lab: Lab, tmp_path: Path) -> None:
    """The agent keeps the limits of existing interfaces."""
    pod = lab.pod("a", ["10.2.1.2/24"])
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth0", "--netns", pod.netns, *LIMIT)
    tokenbucket("attach", "--dev", "eth1", *LIMIT)
    plug(lab, "eth2")
    tokenbucket("attach", "--dev", "eth2", *LIMIT)
    agent = Agent(tmp_path)
    try:
        agent.start(full_pass_s=0.5)
        wait(lambda: len(status()) == 3, agent.log)
        lab.delete(pod)
        ip("link", "delete", "eth1")
        wait(lambda: [limit["device"] for limit in status()] == ["eth2"], agent.log)
    finally:
        agent.stop()


def test_an_unknown_interface_is_an_error() -> None:
    """The error names the interface."""
    done = tokenbucket("attach", "--dev", "nope0", "--direction", "egress", "--rate", "1M", check=False)
    assert done.returncode == 1
    assert "nope0" in done.stderr


def test_inspect_shows_the_machine(pods: tuple[Pod, Pod]) -> None:
    """The output shows context, registers, conditions, and the count of each transition."""
    a, b = pods
    attach = ("attach", "--dev", b.veth, "--direction", "egress", "--packet-rate", "1", "--packet-burst", "5")
    tokenbucket(*attach, "--rate", "10M")
    send(a, b, 50)
    shown = tokenbucket("inspect", "--dev", b.veth).stdout
    for text in ("flow context", "rate 10Mbit/s", "burst 5 packets", "tat =", "state", "too fast"):
        assert text in shown
    refused = next(line for line in shown.splitlines() if line.startswith("too fast") and "drop" in line)
    assert int(refused.split()[-1]) >= 45


@BOTH
def test_limits_behind_another_bpffs_are_reported(lab: Lab, mechanism: str) -> None:
    """The command cannot see the pins, but sees the programs. It can remove filters, and no links of tcx."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", mechanism)
    device = ("--dev", "eth1")
    commands = (["status"], ["inspect", *device], ["attach", *device, *LIMIT], ["detach", *device])
    for command in (*commands, *[["detach", "--all"]] * (mechanism == "tcx")):
        done = behind_another_bpffs(*command)
        assert (done.returncode, done.stderr.count("eth1: limited by programs")) == (5, 1), done.stderr
    assert limit_of("eth1", "egress")["hooks"]
    tokenbucket("detach", "--dev", "eth1")


@pytest.mark.needs("tcx")
def test_limits_behind_another_bpffs_that_remain_are_reported(lab: Lab) -> None:
    """Remove what can be removed without pins, and name the rest: by tcx, and in pods."""
    plug(lab, "eth1")
    pod = lab.pod("a", ["10.2.1.2/24"])
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", "tcx")
    tokenbucket("attach", "--dev", "eth0", "--netns", pod.netns, *LIMIT, "--attach", "clsact")
    for command in (
        ["detach", "--dev", "eth0", "--netns", pod.netns],
        ["attach", "--dev", "eth0", "--netns", pod.netns, *LIMIT],
        ["detach", "--all"],
    ):
        done = behind_another_bpffs(*command)
        assert (done.returncode, "all limits are removed" in done.stdout) == (5, False), done.stdout
        assert f"eth0 in /run/netns/{pod.netns}, eth1: limited by programs" in done.stderr
    assert len(status()) == 2
    assert tokenbucket("detach", "--all").stdout == "2 programs detached\nall limits are removed\n"


def behind_another_bpffs(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where another bpffs hides the pins."""
    shell = ["unshare", "--mount", "sh", "-c", 'mount -t bpf bpf /sys/fs/bpf && exec "$@"', "sh"]
    program = [*shell, sys.executable, "-m", "tokenbucket", *command, "--pins", str(PINS.root)]
    return subprocess.run(program, capture_output=True, text=True)


_RIGHTS = "--bounding-set=-all,+net_admin,+net_broadcast,+bpf,+perfmon"
"""Those of an agent that may not enter the namespaces of pods."""


def restricted(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the right to enter namespaces."""
    program = [sys.executable, "-m", "tokenbucket", *arguments, "--pins", str(PINS.root)]
    return subprocess.run(["setpriv", _RIGHTS, *program], capture_output=True, text=True)


@BOTH
def test_a_process_that_may_not_enter_namespaces_sees_its_own(lab: Lab, mechanism: str) -> None:
    """It needs no right to see the hooks on the node, and a hook that is gone."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", "--attach", mechanism, *LIMIT)
    seen = restricted("status")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert f"{mechanism}/egress" in seen.stdout
    ip("link", "delete", "eth1")
    gone = restricted("status")
    assert (gone.returncode, "the interface is gone" in gone.stdout) == (0, True), gone.stderr


def test_a_hook_that_the_process_cannot_see_is_not_called_missing(lab: Lab) -> None:
    """Show the limits as far as they are visible, and name the hook that is not."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT)
    tokenbucket("attach", "--dev", "eth0", "--netns", lab.pod("a", ["10.2.1.2/24"]).netns, *LIMIT)
    partly = restricted("status")
    assert partly.returncode == ExitCode.UNSEEN
    assert "eth0 egress: its hook is not visible: this process may not enter" in partly.stdout
    assert "eth0 egress: the hook is not visible" in partly.stderr
    assert "eth1 egress" not in partly.stdout + partly.stderr
    documents = json.loads(restricted("status", "-o", "json").stdout)["limits"]
    assert {each["device"]: len(each["hooks"]) for each in documents} == {"eth0": 0, "eth1": 1}
    inspected = restricted("inspect", "--dev", "eth0")
    assert inspected.returncode == ExitCode.UNSEEN
    assert "state           its hook is not visible" in inspected.stdout


def test_a_slot_without_a_filter_is_shown_as_such(lab: Lab) -> None:
    """Each command shows the limit that owns the slot."""
    plug(lab, "eth1")
    tokenbucket("attach", "--dev", "eth1", *LIMIT, "--attach", "clsact")
    tc("qdisc", "delete", "dev", "eth1", "clsact")
    assert "eth1 egress: not attached: another program removed the filter" in tokenbucket("status").stdout
    assert "another program removed the filter" in tokenbucket("inspect", "--dev", "eth1").stdout
    for command in ("inspect", "detach"):
        missing = tokenbucket(command, "--dev", "nope0", check=False)
        assert (missing.returncode, "no such interface" in missing.stderr) == (4, True)
        other = tokenbucket(command, "--dev", "lo", check=False)
        assert (other.returncode, str(PINS.root) in other.stderr) == (4, True)
    tokenbucket("detach", "--dev", "eth1")
    assert str(PINS.root) in tokenbucket("status").stdout
    tokenbucket("attach", "--dev", "eth1", *LIMIT)
    ip("link", "delete", "eth1")
    assert "eth1 egress: not attached: the interface is gone" in tokenbucket("status").stdout
