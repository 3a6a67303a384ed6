"""Limits beside other programs: by tcx before these programs, or inside the pod for redirected packets."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.clang import clang
from tests.netns.agent import PINS, Agent, acquaint, document, drop, policy, send, status, tokenbucket, wait
from tests.netns.lab import Lab, Pod, tc
from tests.netns.recorder import Recorder
from tests.netns.stream import stream
from tests.netns.test_shadowed import FULL_RUN_S, newer_filter, tcx, xdp

BURST = 10
MANY = 200
PROGRAM = Path(__file__).parent / "programs" / "redirect_peer.c"


@pytest.fixture
def web(lab: Lab, agent: Agent) -> Pod:
    """Provide a pod with a limit of one packet per second in each direction, and a pod without limits."""
    web, client = lab.pod("web", ["10.1.1.2/24"]), lab.pod("client", ["10.1.2.2/24"])
    acquaint(web, client)
    limits = {direction: drop(1, BURST) for direction in ("ingress", "egress")}
    agent.write("policies.yaml", policy("web", app="web", **limits))
    agent.write("pods.yaml", document(web))
    return web


def run(agent: Agent, *options: str) -> None:
    agent.start(*options, full_pass_s=FULL_RUN_S)
    wait(lambda: len(agent.events("attached")) >= 2, agent.log)


def holds(lab: Lab, direction: str) -> bool:
    """Return whether the limit of one packet per second drops packets."""
    web, client = lab.pods["web"], lab.pods["client"]
    source, target = (client, web) if direction == "ingress" else (web, client)
    return send(source, target, MANY) < MANY


def attached(direction: str) -> list[str]:
    """Return where the limit of a direction is attached, from the status."""
    return [
        hook["attachment"] for limit in status() if limit["direction"] == direction for hook in limit["hooks"]
    ]


def attachments(agent: Agent, pod: Pod, hook: str) -> int:
    """Return how often the agent attached a limit to a hook of the pod's host-side interface."""
    return sum((each["interface"], each["hook"]) == (pod.veth, hook) for each in agent.events("attached"))


def complaints(agent: Agent) -> list[str]:
    return [f"{each['limit']}: {each['reason']}" for each in agent.events("limit not enforced as declared")]


@contextmanager
def deleter(pod: Pod, hook: str) -> Iterator[None]:
    """Remove clsact, and so each filter, until the agent attaches by another mechanism."""
    while not any("tcx" in place for place in attached("ingress")):
        if "clsact" in tc("qdisc", "show", "dev", pod.veth):
            tc("qdisc", "del", "dev", pod.veth, "clsact")
    yield


@contextmanager
def ingress_qdisc(pod: Pod, _: str) -> Iterator[None]:
    """Replace clsact by an ingress qdisc, while the agent restores clsact."""

    def placed() -> bool:
        if "clsact" in tc("qdisc", "show", "dev", pod.veth):
            tc("qdisc", "del", "dev", pod.veth, "clsact")
        with suppress(subprocess.CalledProcessError):
            tc("qdisc", "add", "dev", pod.veth, "ingress")
        return "qdisc ingress" in tc("qdisc", "show", "dev", pod.veth)

    wait(placed)
    yield


@pytest.mark.needs("tcx")
@pytest.mark.parametrize(
    ("others", "hook"),
    [
        pytest.param(tcx, "egress", id="tcx at egress"),
        pytest.param(tcx, "ingress", id="tcx at ingress"),
        pytest.param(newer_filter, "egress", id="newer filter at egress"),
        pytest.param(newer_filter, "ingress", id="newer filter at ingress"),
        pytest.param(deleter, "", id="deleter of clsact"),
        pytest.param(ingress_qdisc, "", id="ingress qdisc"),
    ],
)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_limit_is_enforced_beside_programs_of_others(
    lab: Lab, agent: Agent, web: Pod, others: Callable, hook: str, direction: str
) -> None:
    """Other programs change the host-side interface while the agent runs. At the end, no reason remains."""
    run(agent)
    with others(web, hook):
        wait(
            lambda: any("tcx" in place for place in attached(direction)) and holds(lab, direction), agent.log
        )
        wait(lambda: len(complaints(agent)) == len(agent.events("reason no longer applies")), agent.log)
        assert len(attached(direction)) == 1


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_newer_filter_of_the_same_priority_is_overtaken(
    lab: Lab, agent: Agent, recorder: Recorder, web: Pod, direction: str
) -> None:
    """The agent attaches its filter again each time, also on a kernel without tcx.
    It leaves no second filter.
    """
    run(agent, "--attach", "clsact")
    recorder.stop()
    hook = "egress" if direction == "ingress" else "ingress"
    for _ in range(2):
        before = attachments(agent, web, hook)
        with newer_filter(web, hook):
            wait(lambda before=before: attachments(agent, web, hook) > before, agent.log)
            assert holds(lab, direction)
    assert attached(direction) == [f"clsact/{hook}"]
    assert tc("filter", "show", "dev", web.veth, hook).count("tokenbucket") == 1


@pytest.mark.parametrize("others", [xdp, pytest.param(tcx, marks=pytest.mark.needs("tcx"))])
def test_a_limit_behind_other_programs_moves_inside_the_pod(
    lab: Lab, agent: Agent, recorder: Recorder, web: Pod, others: Callable
) -> None:
    """XDP runs before every hook. A tcx program runs before a filter, and the counters show it."""
    run(agent, "--attach", "clsact")
    recorder.stop()
    with others(web, "ingress"):
        # Counters show it only if there is traffic.
        wait(lambda: holds(lab, "egress") and attached("egress") == ["pod clsact/egress"], agent.log)
        assert holds(lab, "egress")
        wait(lambda: len(complaints(agent)) == len(agent.events("reason no longer applies")), agent.log)


@pytest.mark.needs("tcx")
def test_a_program_that_comes_before_the_link_is_overtaken(
    lab: Lab, agent: Agent, recorder: Recorder, web: Pod
) -> None:
    """The agent repeats the attachment. Until it has seen the program, nothing is limited."""
    run(agent, "--attach", "tcx")
    recorder.stop()
    for _ in range(2):
        before = attachments(agent, web, "ingress")
        with tcx(web, "ingress", first=True):
            wait(lambda before=before: attachments(agent, web, "ingress") > before, agent.log)
            assert holds(lab, "egress")


@pytest.mark.needs("tcx")
def test_links_outlive_the_agent_and_are_adopted(lab: Lab, agent: Agent, web: Pod) -> None:
    """A killed agent leaves each limit.
    The next agent changes nothing, and detaches limits that are not declared.
    """
    run(agent, "--attach", "tcx")
    before = {(each["slot"], place) for each in status() for place in map(str, each["hooks"])}
    agent.stop()
    assert holds(lab, "ingress") and holds(lab, "egress")
    events = len(agent.events("attached"))
    agent.start("--attach", "tcx")
    assert {(each["slot"], place) for each in status() for place in map(str, each["hooks"])} == before
    assert len(agent.events("attached")) == events
    agent.write("policies.yaml", "")
    wait(lambda: not status(), agent.log)
    assert not holds(lab, "ingress") and not list(PINS.links.iterdir())


@pytest.mark.needs("tcx")
@pytest.mark.parametrize("before, after", [("clsact", "tcx"), ("tcx", "clsact")])
def test_a_limit_moves_to_another_mechanism(
    lab: Lab, agent: Agent, web: Pod, before: str, after: str
) -> None:
    """The limit is attached once, and keeps its tokens."""
    run(agent, "--attach", before)
    assert holds(lab, "ingress")
    agent.stop()
    agent.start("--attach", after)
    wait(lambda: attached("ingress") == [f"{after}/egress"], agent.log)
    assert attached("egress") == [f"{after}/ingress"]
    assert holds(lab, "ingress") and holds(lab, "egress")


@pytest.mark.needs("tcx")
def test_detach_all_leaves_no_link_and_no_stub(lab: Lab, agent: Agent, recorder: Recorder, web: Pod) -> None:
    run(agent, "--attach", "tcx")
    agent.stop()
    recorder.stop()
    assert tokenbucket("detach", "--all").stdout.startswith("2 ")
    assert not holds(lab, "ingress") and not PINS.root.exists()


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_redirected_packets_are_limited_inside_the_pod(
    lab: Lab, agent: Agent, web: Pod, tmp_path: Path, direction: str
) -> None:
    """A program at another pod's interface redirects packets to this pod, past the host-side veth."""
    clang(PROGRAM, tmp_path / "redirect_peer.o")
    client = lab.pods["client"]
    tc("qdisc", "add", "dev", client.veth, "clsact")
    words = f"bpf da obj {tmp_path / 'redirect_peer.o'} sec tc/ingress classid 0:{web.ifindex:x}"
    tc("filter", "add", "dev", client.veth, "ingress", *words.split())
    run(agent)
    wait(lambda: holds(lab, direction), agent.log)
    assert all(place.startswith("pod ") for place in attached("ingress"))
    assert complaints(agent) == []


@pytest.mark.needs("tcx")
def test_the_first_limit_by_a_link_loses_no_packet(lab: Lab, agent: Agent) -> None:
    """Tcx needs no qdisc. The kernel stops an interface while it adds a qdisc."""
    web, client = lab.pod("web", ["10.1.1.2/24"]), lab.pod("client", ["10.1.2.2/24"])
    acquaint(web, client)
    agent.write("pods.yaml", document(web))
    agent.start("--attach", "tcx")
    with stream(client, web, size=64, pause_s=0) as sent:
        for _ in range(20):
            limits = {direction: drop(10**9, 10**6) for direction in ("ingress", "egress")}
            before = len(agent.events("attached"))
            agent.write("policies.yaml", policy("web", app="web", **limits))
            wait(lambda before=before: len(agent.events("attached")) == before + 2, agent.log)
            agent.write("policies.yaml", "")
            wait(lambda before=before: len(agent.events("detached")) == before + 2, agent.log)
            if "clsact" in tc(
                "qdisc", "show", "dev", web.veth
            ):  # the next limit is the first one on this interface again
                tc("qdisc", "del", "dev", web.veth, "clsact")
    assert len(sent.arrived) == sent.sent > 0


@pytest.mark.needs("tcx")
def test_an_upgrade_replaces_the_program_behind_all_links(lab: Lab, agent: Agent, web: Pod) -> None:
    """Another build of the same layout writes the program array, and changes no link."""
    run(agent, "--attach", "tcx")
    assert holds(lab, "ingress")
    agent.stop()
    before = {link.name: link.stat().st_ino for link in PINS.links.iterdir()}
    build = next(PINS.programs.iterdir())
    build.rename(build.with_name("0123456789abcdef"))  # simulate a load by another version
    attachments = len(agent.events("attached"))
    agent.start("--attach", "tcx")
    wait(lambda: [folder.name for folder in PINS.programs.iterdir()] == [build.name], agent.log)
    assert {link.name: link.stat().st_ino for link in PINS.links.iterdir()} == before
    assert len(agent.events("attached")) == attachments
    assert holds(lab, "ingress") and holds(lab, "egress")
