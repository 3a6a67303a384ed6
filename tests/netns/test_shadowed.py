"""Limits that are attached by clsact only, and that programs of others keep from running."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netns import bpf_program
from tests.netns.agent import Agent, acquaint, document, drop, policy, send, wait
from tests.netns.lab import Lab, Pod, ip, tc

NAME = "final_verdict"
ATTACH_BY_CLSACT = ("--attach", "clsact")
REPORTED, OVER = "limit not enforced as declared", "reason no longer applies"
FULL_RUN_S = 0.3
LOOKS = 8


@contextmanager
def tcx(pod: Pod, hook: str, verdict: int = bpf_program.OK, *, first: bool = False) -> Iterator[None]:
    program = bpf_program.verdict_program(verdict, NAME)
    link = bpf_program.attach_tcx(pod.ifindex, hook, program, first=first)
    try:
        yield
    finally:
        os.close(link)
        os.close(program)


@contextmanager
def newer_filter(pod: Pod, hook: str) -> Iterator[None]:
    """Attach a filter of the same priority. The kernel puts it before the older filter."""
    path = "/sys/fs/bpf/final_verdict"
    program = bpf_program.verdict_program(bpf_program.OK, NAME)
    bpf_program.pin(program, path)
    words = ("dev", pod.veth, hook, "prio", "1", "handle", "1", "bpf")
    tc("filter", "add", *words, "direct-action", "object-pinned", path)
    try:
        yield
    finally:
        tc("filter", "del", *words)
        Path(path).unlink()
        os.close(program)


@contextmanager
def xdp(pod: Pod, _: str) -> Iterator[None]:
    path = "/sys/fs/bpf/final_verdict"
    program = bpf_program.verdict_program(bpf_program.XDP_PASS, NAME, xdp=True)
    bpf_program.pin(program, path)
    ip("link", "set", "dev", pod.veth, "xdpgeneric", "pinned", path)
    try:
        yield
    finally:
        ip("link", "set", "dev", pod.veth, "xdpgeneric", "off")
        Path(path).unlink()
        os.close(program)


def not_running(agent: Agent) -> dict[str, str]:
    """Return the limits with a reason, and the messages of the reasons."""
    found: dict[str, str] = {}
    events = [each for name in (REPORTED, OVER) for each in agent.events(name)]
    for event in sorted(events, key=lambda each: each["time"]):
        if event["event"] == REPORTED:
            found[event["limit"]] = f"{event['reason']}: {event['detail']}"
        elif event["event"] == OVER:
            found.pop(event["limit"], None)
    return found


@pytest.fixture
def web(lab: Lab, agent: Agent) -> Pod:
    """Provide a pod with a limit in each direction, a pod without limits, and an agent that checks often."""
    web, client = lab.pod("web", ["10.1.1.2/24"]), lab.pod("client", ["10.1.2.2/24"])
    acquaint(web, client)
    agent.write("policies.yaml", policy("web", app="web", ingress=drop(1, 10), egress=drop(1, 10)))
    agent.write("pods.yaml", document(web))
    agent.start(*ATTACH_BY_CLSACT, full_pass_s=FULL_RUN_S)
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    return web


@pytest.mark.needs("tcx")
@pytest.mark.parametrize(("hook", "direction"), [("egress", "ingress"), ("ingress", "egress")])
def test_a_limit_behind_another_program_is_reported_with_the_programs_name(
    agent: Agent, web: Pod, hook: str, direction: str
) -> None:
    """The report needs no traffic, names only the shadowed direction, and ends with the program."""
    with tcx(web, hook):
        message = wait(lambda: not_running(agent).get(f"default/web {direction}"), agent.log)
        assert message.startswith(f"Shadowed: {NAME} (tcx, program ")
        assert f"{web.veth} {hook}" in message
        assert len(not_running(agent)) == 1
    wait(lambda: not not_running(agent), agent.log)


@pytest.mark.needs("tcx")
def test_a_program_that_passes_packets_on_shadows_no_limit(lab: Lab, agent: Agent, web: Pod) -> None:
    """Programs that only observe are common. The counters prove that the limit runs."""
    client = lab.pods["client"]

    def exchanged() -> bool:
        send(client, web, 300)
        send(web, client, 300)
        return not not_running(agent)

    with tcx(web, "ingress", bpf_program.UNSPEC), tcx(web, "egress", bpf_program.UNSPEC):
        settled = 0
        while settled < LOOKS:  # the counters of the first checks prove nothing yet
            time.sleep(FULL_RUN_S)
            settled = settled + 1 if exchanged() else 0


@pytest.mark.needs("tcx")
def test_a_shadowed_limit_is_not_counted_as_enforced(lab: Lab, agent: Agent, web: Pod) -> None:
    """This includes policies in Observe mode, whose counters would stay empty."""
    agent.write("policies.yaml", policy("web", app="web", mode="Observe", ingress=drop(1, 10)))
    with tcx(web, "egress"):
        message = wait(lambda: not_running(agent).get("default/web ingress"), agent.log)
        assert message.startswith("Shadowed: ")
        assert send(lab.pods["client"], web, 100) == 100
