"""The agent as a process with a folder of manifests, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import yaml

from tests.netns.lab import Pod, ip
from tokenbucket.bpf.pins import Pins, Sizes, build_of, source_folder
from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import Tcx

PINS = Pins(Path("/sys/fs/bpf/netns_rung"))
_SPARE = Path("/sys/fs/bpf/netns_rung_spare")
"""The same maps and programs for tests after one that removes the pins. Compiling takes seconds."""
PATIENCE_S = 500.0
"""Ends hangs. No machine is that slow."""


def tokenbucket(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "tokenbucket", *arguments, "--pins", str(PINS.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def status() -> list[dict[str, Any]]:
    """Return the active limits, from ``tokenbucket status -o json``."""
    limits: list[dict[str, Any]] = json.loads(tokenbucket("status", "-o", "json").stdout)["limits"]
    return limits


def limit_of(name: str, direction: str = "ingress") -> dict[str, Any] | None:
    """Return the limit of a pod or device, if it has one."""
    return next(
        (
            each
            for each in status()
            if name in {each.get("pod"), each.get("device")} and each["direction"] == direction
        ),
        None,
    )


def policy(name: str, *, app: str | None = None, **spec: Any) -> dict[str, Any]:
    """Return a policy document for the pods with that label, or for all."""
    selector = {"matchLabels": {"app": app}} if app else {}
    return {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": selector, **spec},
    }


def drop(
    packets: int | None = None, burst: int | None = None, bits: str | None = None, depth: str | None = None
) -> dict[str, Any]:
    """Return a limit that drops, in packets or in bits per second."""
    rate = {"packets": packets} if packets else {"bits": bits}
    depths = {"packets": burst, "bytes": depth}
    return {"rate": rate, "burst": {k: v for k, v in depths.items() if v}, "exceedAction": "Drop"}


def document(pod: Pod, **labels: str) -> dict[str, Any]:
    """Return the Pod document of a pod of the lab."""
    ips = [{"ip": address.split("/")[0]} for address in pod.addresses]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "labels": labels or {"app": pod.name}},
        "status": {"podIP": ips[0]["ip"], "podIPs": ips},
    }


_OFTEN = """
import functools, sys
from tokenbucket import cli
from tokenbucket.agent import loop, run
run.Loop = functools.partial(loop.Loop, schedule=loop.Schedule(max_s=float(sys.argv.pop(1))))
sys.exit(cli.main())
"""


class Agent:
    """The agent's process, its folder of manifests and its log."""

    def __init__(self, folder: Path, declare: Callable[[str, Sequence[object]], None] | None = None) -> None:
        self.folder = folder / "manifests"
        self.folder.mkdir()
        self.log_file = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at_s = 0.0
        self.prefix: tuple[str, ...] = ()
        """What the command begins with."""
        self._declare = declare
        """Takes the name and the documents of each file that is written."""

    def write(self, name: str, *documents: object) -> None:
        """Write one file of the folder, as an editor does: a new one in the place of the old."""
        text = documents[0] if isinstance(documents[0], str) else yaml.safe_dump_all(documents)
        if self._declare:
            self._declare(name, documents)
        hidden = self.folder / f".{name}.new"
        hidden.write_text(text)
        hidden.rename(self.folder / name)

    def start(self, *options: str, full_pass_s: float = 0.0) -> None:
        """Start it, and wait for its first pass. ``full_pass_s`` makes it read everything so often."""
        before = len(self.events("started"))
        if "--slots" in options:
            clean()  # maps of another size
        program = ["-c", _OFTEN, str(full_pass_s)] if full_pass_s else ["-m", "tokenbucket"]
        command = [*self.prefix, sys.executable, *program, "agent"]
        command += ["--manifests", str(self.folder), "--pins", str(PINS.root)]
        command += ["--log-format", "json", "--log-level", "debug", *options]
        with self.log_file.open("ab") as log:
            self.started_at_s = time.time()
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait(lambda: len(self.events("started")) > before or self.process.poll() is not None, self.log)
        assert self.process.poll() is None, self.log()

    def limit(self, pod: Pod, **limits: object) -> None:
        """Limit a pod by the policy ``web``, and wait for its filter. Starts the agent unless it runs."""
        self.write("policy.yaml", policy("web", app="web", **limits))
        self.write("pods.yaml", document(pod, app="web"))
        if not self.process:
            self.start()
        wait(lambda: self.events("attached"), self.log)

    def stop(self, number: int = signal.SIGKILL) -> int:
        """End it. Returns its exit status."""
        assert self.process
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        self.process = None
        return status

    def log(self) -> str:
        """Return all it has said."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of its log. The last one may not be whole yet."""
        whole = (line for line in self.log().splitlines(keepends=True) if line.endswith("\n"))
        return [json.loads(line) for line in whole if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of its log with that event."""
        return [line for line in self.lines() if line["event"] == name]


def wait(condition: Callable[[], Any], explain: Callable[[], str] = lambda: "", pause_s: float = 0.02) -> Any:
    """Poll until something is true. Returns it. A slow condition leaves the processor to the agent."""
    end = time.monotonic() + PATIENCE_S
    while (began := time.monotonic()) < end:
        found = condition()
        if found:
            return found
        time.sleep(max(pause_s, 4 * (time.monotonic() - began)))
    raise AssertionError(f"waited {PATIENCE_S} s in vain: {explain()}")


_BACKLOG = 11
"""Field of a line of /proc/net/softnet_stat: packets that a processor has received and not handled."""


def wait_for_softirqs() -> None:
    """Wait until the kernel has delivered sent packets, which it does later on a busy machine."""
    statistics = Path("/proc/net/softnet_stat")
    wait(lambda: not any(int(line.split()[_BACKLOG], 16) for line in statistics.read_text().splitlines()))
    time.sleep(0.05)  # the packet that left the backlog last


def send(client: Pod, target: Pod, count: int, size: int = 100) -> int:
    """Send UDP packets at once from one pod to another. Returns how many arrived."""
    before = received(target)
    script = (
        "import socket,sys; a=sys.argv; "
        "s=socket.socket(socket.AF_INET6 if ':' in a[1] else socket.AF_INET, socket.SOCK_DGRAM); "
        "[s.sendto(bytes(int(a[3])), (a[1], 9)) for _ in range(int(a[2]))]"
    )
    client.run("/usr/bin/python3", "-c", script, _address(client, target), str(count), str(size))
    wait_for_softirqs()
    return received(target) - before


def _address(client: Pod, target: Pod) -> str:
    """Return an address of the target, of a family that the client has."""
    versions = {ip_interface(address).version for address in client.addresses}
    return next(str(each.ip) for each in map(ip_interface, target.addresses) if each.version in versions)


_RECEIVE = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
level, option = (socket.IPPROTO_IPV6, 66) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 13)
server = socket.socket(family, socket.SOCK_DGRAM)
server.setsockopt(level, option, 1)  # IPV6_RECVTCLASS, IP_RECVTOS
server.bind((sys.argv[1], 9))
server.settimeout(240)
print('ready', flush=True)
for _ in range(int(sys.argv[2])):
    _, ancillary, _, _ = server.recvmsg(2048, 64)
    print(ancillary[0][2][0] >> 2, flush=True)
"""


def code_points(client: Pod, target: Pod, count: int) -> list[int]:
    """Send UDP packets at once, and return the code points with which they arrive."""
    script = ("/usr/bin/python3", "-c", _RECEIVE, _address(client, target), str(count))
    server = target.popen(*script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout and server.stdout.readline() == "ready\n"
    send(client, target, count)
    output, _ = server.communicate(timeout=PATIENCE_S)
    return [int(line) for line in output.split()]


def acquaint(*pods: Pod) -> None:
    """Fixes who has which address, so that no ARP, multicast report or the like takes a token from a test."""
    for pod in pods:
        if all(ip_interface(address).version == 4 for address in pod.addresses):
            Path(f"/proc/sys/net/ipv6/conf/{pod.veth}/disable_ipv6").write_text("1")
            pod.inside(lambda: Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1"))
        for other in pods:
            if other is not pod:
                send(pod, other, 1)
    for netns in (None, *(pod.netns for pod in pods)):
        for entry in json.loads(ip("-json", "neighbor", "show", netns=netns)):
            if "lladdr" in entry:
                words = (entry["dst"], "lladdr", entry["lladdr"], "dev", entry["dev"], "nud", "permanent")
                ip("neighbor", "replace", *words, netns=netns)


def received(pod: Pod) -> int:
    """Return the UDP datagrams that reached a pod. Without a listener, the kernel counts them as having no
    port.
    """
    total = 0
    for line in pod.run("cat", "/proc/net/snmp6").splitlines():
        name, value = line.split()
        total += int(value) if name in {"Udp6NoPorts", "Udp6InDatagrams"} else 0
    names, values = [
        line.split() for line in pod.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:")
    ]
    counters = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return total + counters["NoPorts"] + counters["InDatagrams"]


def free_slots() -> None:
    """Frees what earlier tests left in the maps. The program stays: the next agent compiles nothing."""
    if not PINS.folder.exists():
        _link_pins(_SPARE, PINS.folder)
    if PINS.folder.exists():
        Tcx(PINS).detach_all()
        with Slots(PINS) as slots:
            resized = slots.count != Sizes().slots
            for index in slots.read():
                slots.free(index)
        if resized:
            clean()
            _link_pins(_SPARE, PINS.folder)
        elif not _SPARE.exists() and PINS.has_build(build_of(source_folder())):
            _link_pins(PINS.folder, _SPARE)


def _link_pins(source: Path, target: Path) -> None:
    """Pin the maps and programs of a folder in another folder too, if there are any."""
    if source.exists():
        shutil.copytree(source, target, copy_function=os.link, ignore=shutil.ignore_patterns("stubs"))


def clean() -> None:
    """Remove what a test left in the kernel."""
    tokenbucket("detach", "--all", check=False)
    if PINS.root.exists():
        os.system(f"rm -r {PINS.root}")
