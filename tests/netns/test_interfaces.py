"""All interfaces of a pod share its limit, including interfaces without another end on the node."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.netns.agent import PINS, Agent, document, drop, policy, send, status, tokenbucket, wait
from tests.netns.lab import Lab, Pod, ip

BURST = 100
MANY = 2 * BURST
ETH0 = ("eth0", "veth", "10.1.{}.2/24")
NET1 = ("net1", "macvlan", "10.8.0.{}/24")

MACVLAN = pytest.mark.needs("macvlan")
IPVLAN = pytest.mark.needs("ipvlan")
Interfaces = list[tuple[str, str, str]]


def made(lab: Lab, name: str, number: int, interfaces: Interfaces) -> Pod:
    """Create a pod with these interfaces and addresses only, so that no other traffic takes tokens."""
    pod = lab.pod(name, wire=False)
    pod.run("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    for device, kind, pattern in interfaces:
        address = pattern.format(number)
        if kind == "veth":
            lab.add_interface(pod, device)
            pod.add_address(address)
            lab._route(pod, address)
        elif kind == "netkit":
            lab.add_netkit(pod, device, address)
        else:
            lab.add_upper(pod, device, address, kind)
        pod.addresses.append(address)
    for device in (*pod.veths, "uplink", "wire"):  # the node's own packets must not count for the pod
        with suppress(FileNotFoundError):
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
    return pod


def paths(web: Pod, client: Pod) -> list[tuple[Pod, Pod]]:
    """Return both pods for each pair of their interfaces, with the addresses of these interfaces only."""
    return [
        (replace(web, addresses=[mine]), replace(client, addresses=[others]))
        for mine, others in zip(web.addresses, client.addresses, strict=True)
    ]


def pair(lab: Lab, agent: Agent, interfaces: Interfaces) -> list[tuple[Pod, Pod]]:
    """Create a pod with limits of one packet per second and a burst, and a pod without limits."""
    web, client = (made(lab, name, number, interfaces) for number, name in ((3, "web"), (4, "client")))
    limits = {direction: drop(1, BURST) for direction in ("ingress", "egress")}
    for one, other in paths(web, client):
        send(one, other, 1), send(other, one, 1)  # ARP must take no token
    agent.write("policies.yaml", policy("web", app="web", **limits))
    agent.write("pods.yaml", document(web))
    return paths(web, client)


def run(agent: Agent, count: int, *options: str) -> None:
    agent.start(*options)
    wait(lambda: len(agent.events("attached")) >= count, agent.log)


def hooks() -> list[str]:
    """Return where limits are attached, from the status."""
    return [f"{hook['attachment']} of {hook['interface']}" for limit in status() for hook in limit["hooks"]]


def sent(direction: str, web: Pod, client: Pod) -> int:
    """Send many packets. Return how many arrive."""
    source, target = (client, web) if direction == "ingress" else (web, client)
    return send(source, target, MANY)


def complaints(agent: Agent) -> list[str]:
    return [f"{each['reason']}: {each['detail']}" for each in agent.events("limit not enforced as declared")]


def inside(pod: Pod) -> str:
    """Return the programs and filters on the pod's own interfaces."""
    return pod.run("sh", "-c", "for i in $(ls /sys/class/net); do tc qdisc show dev $i clsact; done")


CASES = [
    pytest.param([ETH0, NET1], id="veth and macvlan", marks=MACVLAN),
    pytest.param([NET1], id="macvlan", marks=MACVLAN),
    pytest.param([("net1", "ipvlan", "10.8.0.{}/24")], id="ipvlan", marks=IPVLAN),
    pytest.param([("eth0", "netkit", "10.1.{}.2/24")], id="netkit", marks=pytest.mark.needs("netkit")),
    pytest.param([NET1, ("net2", "macvlan", "10.9.0.{}/24")], id="two macvlans", marks=MACVLAN),
]


@pytest.mark.parametrize("attach", ["auto", "clsact"])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("interfaces", CASES)
def test_the_interfaces_of_a_pod_share_its_limit(
    lab: Lab, agent: Agent, interfaces: Interfaces, direction: str, attach: str
) -> None:
    """Traffic on one interface takes the tokens of the others. The next agent keeps the tokens."""
    connections = pair(lab, agent, interfaces)
    run(agent, 2 * len(interfaces), "--attach", attach)
    first = sent(direction, *connections[0])
    assert BURST / 2 < first < MANY
    agent.stop()
    agent.start("--attach", attach)
    assert sent(direction, *connections[-1]) < BURST / 2
    agent.write("policies.yaml", "")
    wait(lambda: len(agent.events("detached")) == 2 * len(interfaces), agent.log)
    assert len(agent.events("attached")) == 2 * len(interfaces)
    assert complaints(agent) == []


@MACVLAN
@pytest.mark.parametrize("attach", ["auto", "clsact"])
def test_detach_all_leaves_nothing_on_the_interfaces(lab: Lab, agent: Agent, attach: str) -> None:
    """The command removes both mechanisms, also inside the pod."""
    [(web, _), _] = pair(lab, agent, [ETH0, NET1])
    run(agent, 4, "--attach", attach)
    agent.stop()
    assert tokenbucket("detach", "--all").stdout.startswith("4 ")
    assert inside(web) == ""
    assert not PINS.root.exists()


@MACVLAN
@pytest.mark.parametrize("address", ["10.8.0.3/24", None])
def test_an_interface_that_comes_later_is_limited(lab: Lab, agent: Agent, address: str | None) -> None:
    """Multus adds the second interface later. Some interfaces have no address."""
    [(web, _)] = pair(lab, agent, [ETH0])
    run(agent, 2)
    lab.link("uplink", "veth", "peer", "name", "wire")
    ip("link", "add", "link", "uplink", "name", "net1", "netns", web.netns, "type", "macvlan")
    if address:
        web.add_address(address, "net1")
    wait(lambda: len(agent.events("attached")) == 4, agent.log)
    assert sum(place.endswith(" of net1") for place in hooks()) == 2
    ip("link", "delete", "net1", netns=web.netns)
    wait(lambda: len(hooks()) == 2, agent.log)
    assert complaints(agent) == []


@MACVLAN
def test_an_interface_that_cannot_be_limited_is_reported(lab: Lab, agent: Agent) -> None:
    """The reason names the interface. The other interface is limited."""
    [(web, client), _] = pair(lab, agent, [ETH0, NET1])
    agent.prefix = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--")
    run(agent, 2)
    assert sent("ingress", web, client) < MANY
    wait(lambda: len(complaints(agent)) == 2, agent.log)
    assert all(each.startswith("InterfaceNotLimited: net1 (macvlan): ") for each in complaints(agent))


@MACVLAN
def test_interfaces_that_lead_only_to_the_pod_are_ignored(lab: Lab, agent: Agent) -> None:
    """Packets from these interfaces leave by another interface of the pod, which is limited."""
    [(web, _)] = pair(lab, agent, [ETH0])
    ip("netns", "add", "nested")
    try:
        for words in (
            "br0 type bridge",
            "vlan0 link eth0 type macvlan",
            "docker0 type veth peer name eth0 netns nested",
        ):
            ip("link", "add", *words.split(), netns=web.netns)
        web.add_address("172.17.0.1/16", "br0")
        run(agent, 2)
        agent.stop()
        agent.start(full_pass_s=1)
        wait(lambda: len(agent.events("started")) == 2, agent.log)
        assert complaints(agent) == []
        assert {place.split()[-1] for place in hooks()} == {web.veth}
    finally:
        ip("netns", "delete", "nested")


@MACVLAN
def test_a_pod_is_found_although_it_comes_after_its_document(lab: Lab, agent: Agent) -> None:
    """No interface of the node leads to the pod, so the agent gets no event about it."""
    web = Pod("web", "pod-web", ["10.8.0.3/24"])
    agent.write("policies.yaml", policy("web", app="web", ingress=drop(1, BURST)))
    agent.write("pods.yaml", document(web))
    agent.start(full_pass_s=1)
    wait(lambda: complaints(agent), agent.log)
    made(lab, "web", 3, [NET1])
    wait(status, agent.log)
    wait(lambda: agent.events("reason no longer applies"), agent.log)
    assert [place.split()[-1] for place in hooks()] == ["net1"]


@MACVLAN
def test_an_address_in_a_namespace_without_a_name_is_ignored(lab: Lab, agent: Agent) -> None:
    """Any process may create such a namespace and set any address in it."""
    web = made(lab, "web", 3, [NET1])
    agent.write("policies.yaml", policy("web", app="web", ingress=drop(1, BURST)))
    agent.write("pods.yaml", document(web))
    script = "ip link set lo up; ip address add 10.8.0.3/24 dev lo; echo; read _"
    command = ["unshare", "--net", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        agent.start()
        wait(status, agent.log)
        process.kill()
    assert complaints(agent) == []


def lead_elsewhere(lab: Lab, web: Pod, kind: str) -> None:
    """Add an interface ``net1`` to a pod, whose packets do not pass the node's interfaces."""
    if kind == "veth":
        other = lab.pod("other", wire=False)
        ip("link", "add", "net1", "netns", web.netns, "type", "veth", "peer", "net1", "netns", other.netns)
        lab.add_interface(other, "eth0")  # it is a pod, not a namespace that the first pod created
        ip("link", "set", "net1", "up", netns=other.netns)
    else:
        ip("tuntap", "add", "dev", "net1", "mode", kind)
        ip("link", "set", "net1", "netns", web.netns)
    ip("link", "set", "net1", "up", netns=web.netns)


@pytest.mark.parametrize("kind", ["veth", "tun", "tap"])
def test_an_interface_that_leads_past_the_node_is_reported(lab: Lab, agent: Agent, kind: str) -> None:
    """The reason names the interface, and ends with it. The limit of the other interface stays."""
    web = lab.pod("web", ["10.1.1.2/24"])
    agent.write("policies.yaml", policy("web", app="web", egress=drop(1, BURST)))
    both = replace(web, addresses=[*web.addresses, "10.9.0.3/24"])
    agent.write("pods.yaml", document(both))
    run(agent, 1)
    lead_elsewhere(lab, web, kind)
    web.add_address("10.9.0.3/24", "net1")
    wait(lambda: complaints(agent), agent.log)
    shown = "veth" if kind == "veth" else "tun"
    assert [each.split(": ")[:2] for each in complaints(agent)] == [
        ["InterfaceNotLimited", f"net1 ({shown})"]
    ]
    assert [place.split()[-1] for place in hooks()] == [web.veth]
    ip("link", "delete", "net1", netns=web.netns)
    wait(lambda: agent.events("reason no longer applies"), agent.log)
    assert not agent.events("detached")


def test_a_veth_to_another_pod_is_reported_without_an_address(lab: Lab, agent: Agent) -> None:
    """A bridge in the pod may have the address."""
    web = lab.pod("web", ["10.1.1.2/24"])
    agent.write("policies.yaml", policy("web", app="web", egress=drop(1, BURST)))
    agent.write("pods.yaml", document(web))
    run(agent, 1)
    lead_elsewhere(lab, web, "veth")
    wait(lambda: complaints(agent), agent.log)
    assert complaints(agent)[0].startswith("InterfaceNotLimited: net1 (veth): ")


def test_a_pod_with_only_an_interface_that_leads_past_the_node_is_reported(lab: Lab, agent: Agent) -> None:
    """Such as a pod of a network plugin that forwards packets in user space."""
    web = lab.pod("web", wire=False)
    lead_elsewhere(lab, web, "tun")
    web.addresses.append("10.9.0.3/24")
    web.add_address(*web.addresses, "net1")
    agent.write("policies.yaml", policy("web", app="web", egress=drop(1, BURST)))
    agent.write("pods.yaml", document(web))
    agent.start()
    wait(lambda: complaints(agent), agent.log)
    assert complaints(agent)[0].startswith("InterfaceNotLimited: net1 (tun): ")


def test_a_tunnel_that_a_pod_creates_is_no_reason(lab: Lab, agent: Agent) -> None:
    """The packets of a VPN in the pod leave by another interface of the pod, which is limited."""
    web = lab.pod("web", ["10.1.1.2/24"])
    ip("tuntap", "add", "dev", "vpn", "mode", "tun", netns=web.netns)
    web.add_address("10.77.0.1/24", "vpn")
    agent.write("policies.yaml", policy("web", app="web", egress=drop(1, BURST)))
    agent.write("pods.yaml", document(web))
    run(agent, 1)
    agent.stop()
    agent.start(full_pass_s=1)
    wait(lambda: len(agent.events("started")) == 2, agent.log)
    agent.write("policies.yaml", policy("web", app="web", egress=drop(2, BURST)))
    wait(lambda: len(agent.events("limit set")) == 2, agent.log)
    assert complaints(agent) == []
