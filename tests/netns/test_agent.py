"""The standalone agent on a node with pods: real veths, real packets."""

from __future__ import annotations

import signal

import pytest

from tests.netns import agent as harness
from tests.netns.agent import (
    Agent,
    acquaint,
    document,
    drop,
    limit_of,
    policy,
    send,
    status,
    tokenbucket,
    wait,
)
from tests.netns.lab import Lab, Pod, ip, tc
from tests.netns.tokens import Tokens

U32 = ("protocol", "all", "u32", "match", "u32", "0", "0", "flowid", "1:1")


@pytest.fixture
def client(lab: Lab) -> Pod:
    """Provide a pod without a limit, to send from: what the node itself sends has a reserve."""
    return lab.pod("client", ["10.1.1.2/24", "fd01::2/64"])


def limited(agent: Agent, pod: Pod, client: Pod | None = None, burst: int = 10) -> None:
    """A running agent that limits a pod to one packet a second."""
    if client:
        acquaint(client, pod)
    agent.limit(pod, ingress=drop(1, burst))


def empties_a_bucket(
    client: Pod, target: Pod, burst: int, limit_of_pod: str = "", direction: str = "ingress"
) -> bool:
    """Flood a full bucket: the burst passes and no more, counting what the kernel itself sends (MLD, ND)."""
    tokens = Tokens(burst)
    arrived = send(client, target, 50)
    most = tokens.most
    passed = limit_of(limit_of_pod or target.name, direction)["conformPackets"]
    return arrived <= most and burst <= passed


@pytest.mark.parametrize("style", ["ptp", "bridge"])
@pytest.mark.parametrize("address", ["10.2.1.2/24", "fd02::2/64"])
def test_a_pod_receives_its_burst_to_the_packet(
    lab: Lab, agent: Agent, client: Pod, style: str, address: str
) -> None:
    """Apply a policy, and send packets to pods of each CNI style and address family."""
    web, other = lab.pod("web", [address], style), lab.pod("other", ["10.3.1.2/24"], style)
    limited(agent, web, client)
    assert empties_a_bucket(client, web, 10)
    assert send(client, other, 50) == 50


def test_egress_is_limited_at_the_other_hook(lab: Lab, agent: Agent, client: Pod) -> None:
    """Use the ingress hook of the host-side veth."""
    web = lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    agent.limit(web, egress=drop(1, 7))
    assert empties_a_bucket(web, client, 7, limit_of_pod="web", direction="egress")


@pytest.mark.parametrize("address", ["10.2.1.2/24", "fd02::2/64"])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_excess_packets_are_marked(lab: Lab, agent: Agent, client: Pod, address: str, direction: str) -> None:
    """Deliver the burst unchanged and the rest with the code point. No packet is lost."""
    web = lab.pod("web", [address])
    acquaint(client, web)
    limit = {"rate": {"packets": 1}, "burst": {"packets": 10}, "exceedAction": "Mark", "dscp": 10}
    agent.limit(web, **{direction: limit})
    source, target = (client, web) if direction == "ingress" else (web, client)
    tokens = Tokens(10)
    code_points = harness.code_points(source, target, 30)
    assert len(code_points) == 30
    assert set(code_points) == {0, 10}
    assert 8 <= code_points.count(0) <= tokens.most, "the kernel's own packets may take some"


def test_all_interfaces_of_a_pod_share_one_bucket(lab: Lab, agent: Agent) -> None:
    """Limit the total of the pod."""
    web = lab.pod("web", ["10.2.1.2/24"], interfaces=2)
    limited(agent, web)
    hooks = wait(lambda: len(limit_of("web")["hooks"]) == 2 and limit_of("web")["hooks"])
    assert {hook["interface"] for hook in hooks} == set(web.veths)


def test_a_veth_that_appears_later_is_limited(lab: Lab, agent: Agent, client: Pod) -> None:
    """Receive the event of the address inside the pod's namespace."""
    web = lab.pod("web", ["10.2.1.2/24"], wire=False)
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, 5)))
    agent.write("pods.yaml", document(web, app="web"))
    agent.start()
    wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    lab.add_interface(web, "eth0")
    web.add_address("10.2.1.2/24")
    lab._route(web, "10.2.1.2/24")
    wait(lambda: agent.events("attached"), agent.log)
    tokens = Tokens(5)
    assert 0 < send(client, web, 20) <= tokens.most, "ARP and multicast reports may have taken some"


@pytest.mark.parametrize("what", ["filter", "clsact"])
def test_a_removed_filter_is_restored_with_its_tokens(lab: Lab, agent: Agent, client: Pod, what: str) -> None:
    """Keep an empty bucket empty."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    tokens = Tokens(10)
    assert empties_a_bucket(client, web, 10)
    if what == "filter":
        tc("filter", "del", "dev", web.veth, "egress")
    else:
        tc("qdisc", "del", "dev", web.veth, "clsact")
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    assert send(client, web, 50) <= tokens.regained


@pytest.mark.parametrize("attach", ["clsact", pytest.param("auto", marks=pytest.mark.needs("tcx"))])
def test_a_contended_filter_is_given_up(lab: Lab, agent: Agent, attach: str) -> None:
    """Attach by tcx after more than five repairs in a minute, or report a contended limit."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.start("--attach", attach)
    limited(agent, web)
    for removals in range(1, 7):
        tc("filter", "del", "dev", web.veth, "egress")
        wait(lambda n=removals: len(agent.events("attached")) > n or reported(agent, "Contended"), agent.log)
    mechanisms = [event["mechanism"] for event in agent.events("attached")]
    if attach == "auto":
        assert mechanisms == 6 * ["clsact"] + ["tcx"]
        assert not reported(agent, "Contended")
    else:
        assert mechanisms == 6 * ["clsact"]
        (finding,) = reported(agent, "Contended")
        assert web.veth in finding["detail"]


def reported(agent: Agent, reason: str) -> list[dict]:
    """Return each time that the agent reports a limit with this reason."""
    events = agent.events("limit not enforced as declared")
    return [event for event in events if event["reason"] == reason]


def test_an_edited_file_changes_the_limit_and_keeps_the_bucket(lab: Lab, agent: Agent, client: Pod) -> None:
    """Add no tokens with a larger burst: an empty bucket fills at the rate."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    tokens = Tokens(10, per_s=2)
    assert empties_a_bucket(client, web, 10)
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(2, 1000)))
    wait(lambda: limit_of("web")["packetsPerSecond"] == 2, agent.log)
    assert send(client, web, 50) <= tokens.regained
    assert limit_of("web")["burstPackets"] == 1000


def test_a_deleted_policy_removes_the_limit(lab: Lab, agent: Agent, client: Pod) -> None:
    """Remove filter and slot, and keep clsact for other programs."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    (agent.folder / "policy.yaml").unlink()
    wait(lambda: agent.events("limit removed"), agent.log)
    assert status() == []
    assert send(client, web, 50) == 50
    assert "tokenbucket" not in tc("filter", "show", "dev", web.veth, "egress")


def test_an_invalid_edit_removes_nothing(lab: Lab, agent: Agent, client: Pod) -> None:
    """Keep the last valid version of the document enforced. The error names the fix."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    agent.write("policy.yaml", policy("web", app="web", ingress={"rate": {"bits": "100Mbps"}}))
    (event,) = wait(lambda: agent.events("invalid document"), agent.log)
    assert "did you mean 100M?" in event["error"]
    agent.write("policy.yaml", "spec: [")
    wait(lambda: len(agent.events("invalid document")) == 2, agent.log)
    assert empties_a_bucket(client, web, 10)


def test_documents_beside_an_invalid_one_apply(lab: Lab, agent: Agent) -> None:
    """Try documents of the same file, and any error."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.write(
        "good.yaml", policy("bad"), policy("web", app="web", ingress=drop(1, 5)), document(web, app="web")
    )
    for number, text in enumerate(["\x00", "a: &a [*a]", "[" * 5000, "x" * 5_000_000, "- 1", "kind: Secret"]):
        agent.write(f"bad{number}.yaml", text)
    (agent.folder / "dangling.yaml").symlink_to("/nowhere")
    agent.start()
    wait(lambda: limit_of("web"), agent.log)
    assert len({event["error"] for event in agent.events("invalid document")}) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_limits_outlive_the_agent_and_are_adopted(
    lab: Lab, agent: Agent, client: Pod, number: signal.Signals
) -> None:
    """Stop or kill the agent. The next agent replaces no filter and adds no token."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    tokens = Tokens(10)
    assert empties_a_bucket(client, web, 10)
    before = tc("filter", "show", "dev", web.veth, "egress")
    agent.stop(number)
    on_the_way = send(client, web, 50)
    assert on_the_way <= tokens.regained
    agent.start()
    wait(lambda: limit_of("web"))
    assert tc("filter", "show", "dev", web.veth, "egress") == before
    assert len(agent.events("attached")) == len(agent.events("limit set")) == 1
    assert on_the_way + send(client, web, 50) <= tokens.regained


def test_an_upgrade_replaces_programs_in_place_and_keeps_tokens(lab: Lab, agent: Agent, client: Pod) -> None:
    """Start another build of the same layout, which removes the old pins."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    tokens = Tokens(10)
    assert empties_a_bucket(client, web, 10)
    agent.stop()
    build = next(harness.PINS.programs.iterdir())
    build.rename(build.with_name("0123456789abcdef"))  # as if another version had loaded it
    agent.start()
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    assert send(client, web, 50) <= tokens.regained
    wait(lambda: [folder.name for folder in harness.PINS.programs.iterdir()] == [build.name], agent.log)


def test_a_stop_by_sigterm_is_a_success(agent: Agent) -> None:
    """End with exit status 0, and log that limits stay."""
    agent.start()
    assert agent.stop(signal.SIGTERM) == 0
    assert "limits stay active" in agent.log()


def test_a_second_agent_is_rejected(agent: Agent) -> None:
    """Keep two agents from reverting each other's changes."""
    agent.start()
    done = tokenbucket("agent", "--manifests", str(agent.folder), check=False)
    assert done.returncode == 1
    assert "another agent is running" in done.stderr


def test_a_pod_on_the_nodes_network_is_reported(lab: Lab, agent: Agent) -> None:
    """Never limit an interface by a guess."""
    host = {**document(lab.pod("web", ["10.2.1.2/24"])), "spec": {"hostNetwork": True}}
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), host)
    agent.start()
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "HostNetwork"
    assert status() == []


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_pod_that_gives_up_its_address_stays_limited(lab: Lab, agent: Agent, direction: str) -> None:
    """Let a pod remove its address. The agent reports it."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.write("all.yaml", policy("all", **{direction: drop(1, 5)}), document(web))
    agent.start()
    wait(lambda: agent.events("attached"), agent.log)
    web.run("ip", "address", "delete", "10.2.1.2/24", "dev", "eth0")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert (event["reason"], event["detail"].rpartition("; ")[2]) == (
        "NoInterface",
        "the limit stays on its last interface",
    )
    web.run("ip", "address", "add", "10.2.1.2/24", "dev", "eth0")
    wait(lambda: agent.events("reason no longer applies"), agent.log)
    assert [hook["interface"] for hook in limit_of("web", direction)["hooks"]] == [web.veth]
    assert not agent.events("detached")
    assert [event["new"] for event in agent.events("limit set")] == [True]


def test_an_address_that_another_pod_takes_removes_no_limit(lab: Lab, agent: Agent) -> None:
    """Keep two pods of one owner from freeing one of them."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    limited(agent, web)
    other.run("ip", "address", "add", "10.2.1.2/32", "dev", "eth0")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "AddressConflict"
    other.run("ip", "address", "delete", "10.2.1.2/32", "dev", "eth0")
    wait(lambda: agent.events("reason no longer applies"), agent.log)
    assert not agent.events("detached")
    assert [event["new"] for event in agent.events("limit set")] == [True]


def test_a_pod_that_gives_its_address_to_another_stays_limited_in_place(lab: Lab, agent: Agent) -> None:
    """Keep the limit of the other pod too, for any names."""
    first, second = lab.pod("aaa", ["10.2.1.2/24"]), lab.pod("zzz", ["10.3.1.2/24"])
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), document(first), document(second))
    agent.start()
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    first.run("ip", "address", "delete", "10.2.1.2/24", "dev", "eth0")
    second.run("ip", "address", "add", "10.2.1.2/32", "dev", "eth0")
    wait(lambda: reported(agent, "AddressConflict"), agent.log)
    hooks = {limit["pod"]: [hook["interface"] for hook in limit["hooks"]] for limit in status()}
    assert hooks == {"aaa": [first.veth], "zzz": [second.veth]}
    assert not agent.events("detached")


def test_a_pod_that_gives_its_address_to_one_without_a_limit_stays_limited(lab: Lab, agent: Agent) -> None:
    """Start an agent afterwards too. The pod is reachable by a separate route."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    limited(agent, web)
    agent.write("other.yaml", document(other))
    web.run("ip", "address", "delete", "10.2.1.2/24", "dev", "eth0")
    web.run("ip", "route", "add", "local", "10.2.1.2/32", "dev", "lo")
    other.run("ip", "address", "add", "10.2.1.2/32", "dev", "eth0")
    wait(lambda: reported(agent, "AddressConflict"), agent.log)
    agent.stop()
    agent.start()
    wait(lambda: len(reported(agent, "AddressConflict")) == 2, agent.log)
    assert [hook["interface"] for hook in limit_of("web")["hooks"]] == [web.veth]
    assert not agent.events("detached")


def test_pods_whose_exchanged_addresses_are_corrected_exchange_limits(lab: Lab, agent: Agent) -> None:
    """Move each with its bucket, because a corrected document is no attack."""
    first, second = lab.pod("aaa", ["10.2.1.2/24"]), lab.pod("zzz", ["10.3.1.2/24"])
    mixed_up = [document(first), document(second)]
    mixed_up[0]["status"], mixed_up[1]["status"] = mixed_up[1]["status"], mixed_up[0]["status"]
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), *mixed_up)
    agent.start()
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), document(first), document(second))
    wait(lambda: len(agent.events("attached")) == 4, agent.log)
    hooks = {limit["pod"]: [hook["interface"] for hook in limit["hooks"]] for limit in status()}
    assert hooks == {"aaa": [first.veth], "zzz": [second.veth]}
    assert not agent.events("limit not enforced as declared")


def test_a_new_pod_with_the_address_that_another_had_is_limited_at_once(lab: Lab, agent: Agent) -> None:
    """Limit it in the run in which the other pod is declared elsewhere."""
    first, second = lab.pod("aaa", ["10.2.1.2/24"]), lab.pod("zzz", ["10.3.1.2/24"])
    limit = policy("all", ingress=drop(1, 5))
    agent.write("all.yaml", limit, {**document(first), "status": document(second)["status"]})
    agent.start()
    wait(lambda: agent.events("attached"), agent.log)
    agent.write("all.yaml", limit, document(first), document(second))
    wait(lambda: len(agent.events("attached")) == 3, agent.log)
    hooks = {limit["pod"]: [hook["interface"] for hook in limit["hooks"]] for limit in status()}
    assert hooks == {"aaa": [first.veth], "zzz": [second.veth]}
    assert not agent.events("limit not enforced as declared")


def test_a_new_pod_of_the_same_name_starts_with_a_full_bucket(lab: Lab, agent: Agent, client: Pod) -> None:
    """Compare the uid, so that the pod inherits no debt."""
    web = lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    first, second = document(web, app="web"), document(web, app="web")
    first["metadata"]["uid"], second["metadata"]["uid"] = "1", "2"
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, 10)))
    agent.write("pods.yaml", first)
    agent.start()
    wait(lambda: agent.events("attached"), agent.log)
    assert empties_a_bucket(client, web, 10)
    agent.write("pods.yaml", second)
    wait(lambda: agent.events("limit removed"), agent.log)
    assert empties_a_bucket(client, web, 10)


def test_detach_all_removes_only_objects_of_tokenbucket(lab: Lab, agent: Agent) -> None:
    """Wait until the agent has stopped, which would restore them."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web)
    tc("filter", "add", "dev", web.veth, "egress", "prio", "7", *U32)
    assert "another agent is running" in tokenbucket("detach", "--all", check=False).stderr
    agent.stop()
    tokenbucket("detach", "--all")
    assert not harness.PINS.root.exists()
    shown = tc("filter", "show", "dev", web.veth, "egress")
    assert "tokenbucket" not in shown
    assert "u32" in shown


def test_commands_without_a_loaded_program_report_no_limit() -> None:
    """Run them on any machine."""
    harness.clean()
    assert status() == []
    assert tokenbucket("status").stdout.startswith("nothing is limited (looked in ")
    assert tokenbucket("inspect", "web", check=False).returncode == 4
    assert tokenbucket("detach", "--dev", "lo", check=False).returncode == 4


def test_a_limit_without_a_free_slot_is_reported_and_others_stay(lab: Lab, agent: Agent) -> None:
    """Name the second of two limits with capacity for one."""
    pods = [lab.pod(name, [f"10.2.{place}.2/24"]) for place, name in enumerate("ab")]
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), *map(document, pods))
    agent.start("--slots", "2")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert (event["reason"], event["limit"]) == ("NoFreeSlot", "default/b ingress")
    assert [limit["pod"] for limit in status()] == ["a"]


def test_a_foreign_filter_in_the_place_of_tokenbuckets_is_reported(lab: Lab, agent: Agent) -> None:
    """Attach it as the CNI bandwidth plugin does. It stays unchanged."""
    web = lab.pod("web", ["10.2.1.2/24"])
    tc("qdisc", "add", "dev", web.veth, "clsact")
    tc("filter", "add", "dev", web.veth, "egress", "prio", "1", *U32)
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), document(web))
    agent.start("--attach", "clsact")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "ForeignFilter"
    assert "u32" in tc("filter", "show", "dev", web.veth, "egress")


def test_a_deleted_veth_is_forgotten(lab: Lab, agent: Agent) -> None:
    """Keep the slot of the pod until its document is deleted."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web)
    ip("link", "delete", web.veth)
    web.veths.clear()
    wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert limit_of("web")["hooks"] == []
