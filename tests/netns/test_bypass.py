"""Traffic that a CNI plugin redirects to the pod, past the hook of its host-side veth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clang import clang
from tests.netns.agent import Agent, acquaint, document, drop, limit_of, policy, send, wait
from tests.netns.lab import Lab, Pod, tc

pytestmark = pytest.mark.exceeds
PROGRAM = Path(__file__).parent / "programs" / "redirect_peer.c"
MANY = 500
"""Packets at once: enough for one read of the counters to be conclusive."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Compile the plugin's program."""
    clang(PROGRAM, tmp_path / "redirect_peer.o")
    return tmp_path / "redirect_peer.o"


def redirect(program: Path, client: Pod, target: Pod) -> None:
    """Redirect all packets of a client to the target's own interface, for any destination address."""
    tc("qdisc", "add", "dev", client.veth, "clsact")
    words = f"bpf da obj {program} sec tc/ingress classid 0:{target.ifindex:x}"
    tc("filter", "add", "dev", client.veth, "ingress", *words.split())


def reasons(agent: Agent, event: str = "limit not enforced as declared") -> list[tuple[str, str]]:
    """Return the limit and the reason of each logged event."""
    return [(each["limit"], each["reason"]) for each in agent.events(event)]


def test_only_bypassed_limits_are_reported(lab: Lab, agent: Agent, program: Path) -> None:
    """The report ends when packets pass the hook again. Limits with traffic at the hook, or without
    traffic, are not reported.

    The agent must not enter pods here, because it would limit redirected packets there.
    """
    plugins, client = lab.pod("plugins", ["10.1.1.2/24"]), lab.pod("client", ["10.1.2.2/24"])
    pods = [lab.pod(name, [f"10.2.{place}.2/24"]) for place, name in enumerate(("web", "db", "idle"), 1)]
    web, db, _ = pods
    acquaint(plugins, web)
    acquaint(client, db)
    redirect(program, plugins, web)
    strict, lax = drop(1, 10), drop(1_000_000, 1_000_000)
    agent.write(
        "policies.yaml", policy("all", ingress=strict), policy("db", app="db", priority=1, ingress=lax)
    )
    agent.write("pods.yaml", *map(document, pods))
    agent.prefix = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--")
    agent.start(full_pass_s=0.3)
    wait(lambda: len(agent.events("attached")) == len(pods), agent.log)
    counted = limit_of("web")["conformPackets"]

    def reported() -> bool:
        assert send(client, db, MANY) == MANY
        assert send(plugins, web, MANY) == MANY, "the limit is a packet a second"
        return bool(reasons(agent))

    wait(reported, agent.log)
    assert limit_of("web")["conformPackets"] == counted
    tc("filter", "del", "dev", plugins.veth, "ingress")

    def over() -> bool:
        assert send(client, db, MANY) == MANY
        assert send(plugins, web, MANY) < MANY
        return bool(reasons(agent, "reason no longer applies"))

    wait(over, agent.log)
    assert (
        reasons(agent) == reasons(agent, "reason no longer applies") == [("default/web ingress", "Bypassed")]
    )
