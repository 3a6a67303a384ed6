"""Processor time of an idle agent: ``make bench-idle``.

The node has 3,000 addresses, as on kube-ipvs0, and 20,000 leaked CNI results. In further runs, it has 5,000
interfaces, or the attachment of a pod is rejected, each time for another cause. The agent runs in a network
namespace of its own. The goal is 0.5 % of a core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.isolation import private_namespaces
from tests.netns.agent import PINS, Agent, document, drop, policy, wait
from tests.netns.lab import Lab, Pod, batch, tc

ADDRESSES, RESULTS, INTERFACES = 3_000, 20_000, 5_000
GOAL = 0.005
_U32 = ("protocol", "all", "prio", "1", "u32", "match", "u32", "0", "0", "flowid", "1:1")
_IP = ("protocol", "ip", "prio", "1", "u32", "match", "u32", "0", "0", "flowid", "1:1")
_AGENT = """
import select, sys
from pathlib import Path
from tokenbucket import cli
from tokenbucket.agent import run, source
from tokenbucket.cni import CniResults

class FolderSource(source.FolderSource):
    def __init__(self, path, **more):
        super().__init__(path, **more)
        self.cni, self.poll = CniResults(Path(RESULTS)), select.epoll()
        for readable in (self._watch, self.cni):
            self.poll.register(readable, select.EPOLLIN)

    def fileno(self):
        return self.poll.fileno()

    def drain(self):
        self.cni.drain()
        super().drain()

    def reread(self):
        super().reread()
        if hasattr(self, "cni"):
            self.cni.reread()

    def snapshot(self):
        self.cni.refresh()
        return super().snapshot()

run.FolderSource = FolderSource
sys.exit(cli.main())
"""


def block_is_shared(pod: Pod) -> None:
    """Clsact with shared blocks takes no filter of one interface."""
    tc("qdisc", "add", "dev", pod.veth, "ingress_block", "21", "egress_block", "22", "clsact")


def u32_is_there(pod: Pod) -> None:
    """Add a filter of another kind with the same priority."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc("filter", "add", "dev", pod.veth, "egress", *_U32)


def ip_is_there(pod: Pod) -> None:
    """Add a filter of another protocol with the same priority."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc("filter", "add", "dev", pod.veth, "egress", *_IP)


def ingress_is_there(pod: Pod) -> None:
    """Add an ingress qdisc, which excludes clsact."""
    tc("qdisc", "add", "dev", pod.veth, "ingress")


def veths_are_there(_: Pod) -> None:
    """The node has interfaces that lead to no pod."""
    batch("ip", [f"link add x{n} type veth peer name y{n}" for n in range(INTERFACES // 2)])


CAUSES: dict[str, Callable[[Pod], None] | None] = {
    "nothing rejected": None,
    "5,000 interfaces": veths_are_there,
    "shared block": block_is_shared,
    "u32 at priority 1": u32_is_there,
    "protocol ip at priority 1": ip_is_there,
    "ingress qdisc": ingress_is_there,
}


def measure(cause: Callable[[Pod], None] | None, seconds: float, attach: str) -> tuple[float, int]:
    """Return the share of a core, and the log lines of that time."""
    lab = Lab()
    with contextlib.closing(lab), tempfile.TemporaryDirectory() as folder:
        lab.link("ipvs0", "bridge")
        batch("ip", [f"address add 192.168.{n // 250}.{n % 250 + 1}/32 dev ipvs0" for n in range(ADDRESSES)])
        results = Path(folder, "results")
        results.mkdir()
        for number in range(RESULTS):
            write_leaked(results, number)
        pod = lab.pod("web", ["10.2.1.2/24"])
        if cause:
            cause(pod)
        agent = Agent(Path(folder))
        agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, 10)))
        agent.write("pods.yaml", document(pod, app="web"))
        command = [sys.executable, "-c", _AGENT.replace("RESULTS", repr(str(results))), "agent"]
        command += ["--manifests", str(agent.folder), "--pins", str(PINS.root), "--log-format", "json"]
        with agent.log_file.open("ab") as log:
            agent.process = subprocess.Popen([*command, "--attach", attach], stdout=log, stderr=log)
        wait(lambda: agent.events("started"), agent.log)
        time.sleep(20)  # retries have found their pace
        before, lines = processor_s(agent.process.pid), len(agent.lines())
        time.sleep(seconds)
        share = (processor_s(agent.process.pid) - before) / seconds
        lines = len(agent.lines()) - lines
        agent.stop()
    return share, lines


def write_leaked(folder: Path, number: int) -> None:
    """Write the result of a sandbox that is lost."""
    arguments = {"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": f"job-{number}", "K8S_POD_UID": f"uid-{number}"}
    content = {
        "kind": "cniCacheV1",
        "containerId": f"{number:064x}",
        "ifName": "eth0",
        "cniArgs": list(arguments.items()),
        "result": {"ips": [{"address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/24"}]},
    }
    (folder / f"pods-{number:064x}-eth0").write_text(json.dumps(content))


def processor_s(pid: int) -> float:
    """Return the processor time of a process, in user space and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure each cause, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=130.0, help="duration of a run (default %(default)s)"
    )
    parser.add_argument("--attach", default="clsact", help="mechanism (default %(default)s)")
    parser.add_argument("--only", choices=list(CAUSES), help="one cause")
    options = parser.parse_args()
    private_namespaces()
    print(f"{'attachment':<28} {'of a core':>9} {'log lines':>9}   goal {GOAL:.1%}")
    for name, cause in CAUSES.items():
        if options.only in {None, name}:
            share, lines = measure(cause, options.seconds, options.attach)
            print(f"{name:<28} {share:>9.2%} {lines:>9}   {'met' if share < GOAL else 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
