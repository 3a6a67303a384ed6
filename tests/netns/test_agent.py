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
    """A pod without a limit, to send from: what the node itself sends has a reserve."""
    return lab.pod("client", ["10.1.1.2/24", "fd01::2/64"])


def limited(agent: Agent, pod: Pod, client: Pod | None = None, burst: int = 10) -> None:
    """A running agent that limits a pod to one packet a second."""
    if client:
        acquaint(client, pod)
    agent.limit(pod, ingress=drop(1, burst))


def empties_a_bucket(
    client: Pod, target: Pod, burst: int, limit_of_pod: str = "", direction: str = "ingress"
) -> bool:
    """Floods a full bucket: the burst passes and no more, counting what the kernel itself sends (MLD, ND)."""
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
    """From policy.yaml to packets limited, whatever the CNI's style and the family."""
    web, other = lab.pod("web", [address], style), lab.pod("other", ["10.3.1.2/24"], style)
    limited(agent, web, client)
    assert empties_a_bucket(client, web, 10)
    assert send(client, other, 50) == 50


def test_egress_is_limited_at_the_other_hook(lab: Lab, agent: Agent, client: Pod) -> None:
    """What the pod sends enters the node at its host-side veth."""
    web = lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    agent.limit(web, egress=drop(1, 7))
    assert empties_a_bucket(web, client, 7, limit_of_pod="web", direction="egress")


@pytest.mark.parametrize("address", ["10.2.1.2/24", "fd02::2/64"])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_what_exceeds_is_marked(lab: Lab, agent: Agent, client: Pod, address: str, direction: str) -> None:
    """Two colors: the burst arrives as it was sent, the rest with the code point; nothing is lost."""
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
    """The limit is the pod's total."""
    web = lab.pod("web", ["10.2.1.2/24"], interfaces=2)
    limited(agent, web)
    hooks = wait(lambda: len(limit_of("web")["hooks"]) == 2 and limit_of("web")["hooks"])
    assert {hook["interface"] for hook in hooks} == set(web.veths)


def test_a_veth_that_appears_later_is_limited(lab: Lab, agent: Agent, client: Pod) -> None:
    """The address that the pod gets inside its own namespace is event enough."""
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
def test_what_somebody_removes_is_back_with_its_tokens(
    lab: Lab, agent: Agent, client: Pod, what: str
) -> None:
    """An empty bucket is still empty afterwards."""
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
def test_a_contender_is_not_fought(lab: Lab, agent: Agent, attach: str) -> None:
    """More than five repairs in a minute: the agent attaches by tcx, or reports a contended limit."""
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
    """Each time that the agent reports a limit with this reason."""
    events = agent.events("limit not enforced as declared")
    return [event for event in events if event["reason"] == reason]


def test_an_edited_file_changes_the_limit_and_keeps_the_bucket(lab: Lab, agent: Agent, client: Pod) -> None:
    """A larger burst is not a gift: an emptied bucket fills at the rate."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    tokens = Tokens(10, per_s=2)
    assert empties_a_bucket(client, web, 10)
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(2, 1000)))
    wait(lambda: limit_of("web")["packetsPerSecond"] == 2, agent.log)
    assert send(client, web, 50) <= tokens.regained
    assert limit_of("web")["burstPackets"] == 1000


def test_a_deleted_policy_removes_the_limit(lab: Lab, agent: Agent, client: Pod) -> None:
    """Filter and slot are gone; clsact stays for whoever uses it."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    (agent.folder / "policy.yaml").unlink()
    wait(lambda: agent.events("limit removed"), agent.log)
    assert status() == []
    assert send(client, web, 50) == 50
    assert "tokenbucket" not in tc("filter", "show", "dev", web.veth, "egress")


def test_a_wrong_edit_removes_nothing(lab: Lab, agent: Agent, client: Pod) -> None:
    """The last valid version of the document stays in force, and the error names the fix."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web, client)
    agent.write("policy.yaml", policy("web", app="web", ingress={"rate": {"bits": "100Mbps"}}))
    (event,) = wait(lambda: agent.events("invalid document"), agent.log)
    assert "did you mean 100M?" in event["error"]
    agent.write("policy.yaml", "spec: [")
    wait(lambda: len(agent.events("invalid document")) == 2, agent.log)
    assert empties_a_bucket(client, web, 10)


def test_documents_beside_a_wrong_one_apply(lab: Lab, agent: Agent) -> None:
    """Also in the same file, and whatever is wrong."""
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
def test_limits_outlive_the_agent_and_are_taken_over(
    lab: Lab, agent: Agent, client: Pod, number: signal.Signals
) -> None:
    """Stopped or killed: packets are limited on, and a new agent replaces no filter and gives no token."""
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
    """Another build of the same layout: filters swap their program, buckets stay, old pins go."""
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
    """Exit status 0, and it says that limits stay."""
    agent.start()
    assert agent.stop(signal.SIGTERM) == 0
    assert "limits stay active" in agent.log()


def test_a_second_agent_is_refused(agent: Agent) -> None:
    """Two would undo one another's work."""
    agent.start()
    done = tokenbucket("agent", "--manifests", str(agent.folder), check=False)
    assert done.returncode == 1
    assert "another agent is running" in done.stderr


def test_a_pod_on_the_nodes_network_is_reported(lab: Lab, agent: Agent) -> None:
    """Nobody is limited by guess."""
    host = {**document(lab.pod("web", ["10.2.1.2/24"])), "spec": {"hostNetwork": True}}
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), host)
    agent.start()
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "HostNetwork"
    assert status() == []


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_pod_that_gives_up_its_address_stays_limited(lab: Lab, agent: Agent, direction: str) -> None:
    """It may configure its network, and would be free; that it cannot be found by it is said."""
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
    """Two pods of one owner could free one of them that way."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.3.1.2/24"])
    limited(agent, web)
    other.run("ip", "address", "add", "10.2.1.2/32", "dev", "eth0")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "AddressConflict"
    other.run("ip", "address", "delete", "10.2.1.2/32", "dev", "eth0")
    wait(lambda: agent.events("reason no longer applies"), agent.log)
    assert not agent.events("detached")
    assert [event["new"] for event in agent.events("limit set")] == [True]


def test_a_pod_that_hands_its_address_to_another_stays_limited_where_it_is(lab: Lab, agent: Agent) -> None:
    """And the other keeps its own limit, whatever the names."""
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


def test_a_pod_that_hands_its_address_to_one_without_a_limit_stays_limited(lab: Lab, agent: Agent) -> None:
    """Also for an agent that starts after the deed; it is reachable by a route of its own."""
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


def test_pods_whose_mixed_up_addresses_are_corrected_change_places(lab: Lab, agent: Agent) -> None:
    """Each with its bucket; a mistake that was mended is no attack."""
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
    """In the pass in which the other is declared to be elsewhere."""
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
    """Its predecessor's debts are not its own: the uid tells them apart."""
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


def test_detach_all_leaves_nothing_of_ours_and_all_of_others(lab: Lab, agent: Agent) -> None:
    """It waits for the agent to be stopped, because that would put everything back."""
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


def test_nothing_loaded_is_nothing_limited() -> None:
    """Commands that read work on any machine."""
    harness.clean()
    assert status() == []
    assert tokenbucket("status").stdout.startswith("nothing is limited (looked in ")
    assert tokenbucket("inspect", "web", check=False).returncode == 4
    assert tokenbucket("detach", "--dev", "lo", check=False).returncode == 4


def test_a_full_table_is_reported_and_the_others_stay_limited(lab: Lab, agent: Agent) -> None:
    """With room for one limit, the second is named."""
    pods = [lab.pod(name, [f"10.2.{place}.2/24"]) for place, name in enumerate("ab")]
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), *map(document, pods))
    agent.start("--slots", "2")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert (event["reason"], event["limit"]) == ("NoFreeSlot", "default/b ingress")
    assert [limit["pod"] for limit in status()] == ["a"]


def test_a_foreign_filter_in_our_place_is_reported(lab: Lab, agent: Agent) -> None:
    """As the CNI bandwidth plugin's; it stays as it is."""
    web = lab.pod("web", ["10.2.1.2/24"])
    tc("qdisc", "add", "dev", web.veth, "clsact")
    tc("filter", "add", "dev", web.veth, "egress", "prio", "1", *U32)
    agent.write("all.yaml", policy("all", ingress=drop(1, 5)), document(web))
    agent.start("--attach", "clsact")
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "ForeignFilter"
    assert "u32" in tc("filter", "show", "dev", web.veth, "egress")


def test_a_vanished_veth_is_forgotten(lab: Lab, agent: Agent) -> None:
    """The pod keeps its slot until its document goes."""
    web = lab.pod("web", ["10.2.1.2/24"])
    limited(agent, web)
    ip("link", "delete", web.veth)
    web.veths.clear()
    wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert limit_of("web")["hooks"] == []
