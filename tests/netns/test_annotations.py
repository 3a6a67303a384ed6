"""Limits that annotations of pods declare, and other components that limit the same pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.documentation.blocks import ROOT, blocks
from tests.netns.agent import Agent, acquaint, document, limit_of, policy, send, wait
from tests.netns.lab import Lab, Pod, ip, run, tc
from tokenbucket.core.planning.reasons import Reason

PACKETS, SIZE = 1_000, 1_400
READS = "--bandwidth-annotations"
SHAPER = ("tbf", "rate", "1mbit", "burst", "10k", "latency", "25ms")


def annotated(pod: Pod, **bandwidth: str) -> dict[str, Any]:
    """Return the document of a pod with these annotations of Kubernetes."""
    found = document(pod)
    names = {f"kubernetes.io/{direction}-bandwidth": value for direction, value in bandwidth.items()}
    found["metadata"]["annotations"] = names
    return found


def reasons(agent: Agent) -> set[tuple[str, str]]:
    """Return the limits and reasons that the agent has logged."""
    events = agent.events("limit not enforced as declared")
    return {(event["limit"].rpartition(" ")[2], event["reason"]) for event in events}


def test_the_sample_of_kubernetes_limits_a_pod_and_follows_its_annotations(lab: Lab, agent: Agent) -> None:
    """Set, change and remove the annotations while the pod and the agent run."""
    client, web = lab.pod("client", ["10.1.1.2/24"]), lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    agent.write("pods.yaml", annotated(web, ingress="1M", egress="1M"))
    agent.start(READS)
    limit = wait(lambda: limit_of("web"), agent.log)
    assert (limit["bitsPerSecond"], limit["policy"]) == (10**6, "@annotations")
    assert wait(lambda: limit_of("web", "egress"), agent.log)["bitsPerSecond"] == 10**6
    assert 0 < send(client, web, PACKETS, SIZE) < PACKETS

    agent.write("pods.yaml", annotated(web, ingress="2M", egress="1M"))
    wait(lambda: limit_of("web")["bitsPerSecond"] == 2 * 10**6, agent.log)
    agent.write("pods.yaml", annotated(web, egress="1M"))
    wait(lambda: limit_of("web") is None, agent.log)
    assert send(client, web, PACKETS, SIZE) == PACKETS
    assert limit_of("web", "egress")


def test_a_policy_takes_a_direction_over_and_gives_it_back(lab: Lab, agent: Agent) -> None:
    """The annotations keep the other direction."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.write("pods.yaml", annotated(web, ingress="1M", egress="1M"))
    agent.write("policy.yaml", policy("web", ingress={"rate": {"bits": "5M"}}))
    agent.start(READS)
    wait(lambda: limit_of("web") and limit_of("web", "egress"), agent.log)
    assert [limit_of("web", each)["policy"] for each in ("ingress", "egress")] == ["web", "@annotations"]
    agent.write("policy.yaml", "")
    wait(lambda: limit_of("web")["policy"] == "@annotations", agent.log)
    assert limit_of("web")["bitsPerSecond"] == 10**6


def test_an_invalid_annotation_is_reported_and_disturbs_no_other_limit(lab: Lab, agent: Agent) -> None:
    """This includes a valid annotation that becomes invalid."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.write("pods.yaml", annotated(web, ingress="1M", egress="1M"))
    agent.start(READS)
    wait(lambda: limit_of("web") and limit_of("web", "egress"), agent.log)
    before = limit_of("web", "egress")
    agent.write("pods.yaml", annotated(web, ingress="1Mbit", egress="1M"))
    wait(lambda: ("ingress", Reason.INVALID_ANNOTATION) in reasons(agent), agent.log)
    wait(lambda: limit_of("web") is None, agent.log)
    assert limit_of("web", "egress")["slot"] == before["slot"]


def test_an_agent_that_does_not_read_annotations_limits_no_annotated_pod(lab: Lab, agent: Agent) -> None:
    """The option is off by default."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    agent.write("policy.yaml", policy("other", app="other", ingress={"rate": {"bits": "5M"}}))
    agent.write("pods.yaml", annotated(web, ingress="1M"), document(other))
    agent.start()
    wait(lambda: limit_of("other"), agent.log)
    assert limit_of("web") is None


@pytest.fixture
def ifb() -> Iterator[str]:
    """Provide an ifb device with the name that the CNI bandwidth plugin gives its devices."""
    name = "bwptest0"
    ip("link", "add", name, "type", "ifb")
    ip("link", "set", name, "up")
    yield name
    ip("link", "del", name)


def test_a_pod_that_its_cni_plugin_limits_too_is_reported(lab: Lab, agent: Agent, ifb: str) -> None:
    """Set up the queues in both directions, as the CNI bandwidth plugin does. The limits stay enforced."""
    web = lab.pod("web", ["10.2.1.2/24"])
    tc("qdisc", "add", "dev", web.veth, "handle", "1:", "root", *SHAPER)
    tc("qdisc", "add", "dev", ifb, "handle", "1:", "root", *SHAPER)
    tc("qdisc", "add", "dev", web.veth, "handle", "ffff:", "ingress")
    redirect = ("action", "mirred", "egress", "redirect", "dev", ifb)
    everything = ("protocol", "all", "prio", "1", "u32", "match", "u32", "0", "0")
    tc("filter", "add", "dev", web.veth, "parent", "ffff:", *everything, *redirect)
    agent.write("pods.yaml", annotated(web, ingress="1M", egress="1M"))
    agent.start(READS)
    expected = {("ingress", Reason.ALSO_LIMITED), ("egress", Reason.ALSO_LIMITED)}
    wait(lambda: expected <= reasons(agent), agent.log)
    messages = [
        event["detail"]
        for event in agent.events("limit not enforced as declared")
        if event["reason"] == Reason.ALSO_LIMITED
    ]
    assert any(f"{web.veth}: a tbf qdisc, handle 1:" in message for message in messages)
    assert any(f"{ifb} with a tbf qdisc" in message and "CNI bandwidth" in message for message in messages)
    page = (ROOT / "docs/migration/cni-bandwidth-plugin.md").read_text()
    [removal] = [block.text for block in blocks(page) if block.language == "sh"]
    for command in removal.replace("VETH", web.veth).splitlines():
        run(*command.split())
    wait(lambda: len(agent.events("reason no longer applies")) >= len(expected), agent.log)
