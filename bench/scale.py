"""How an agent does with 500 pods: cold start, a change of the rate, a restart, and its memory."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import lab
from figures import Figure, below, must_be, print_table

from tests.netns.agent import clean, wait
from tests.netns.lab import Pod, batch
from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.bpf.slots import Meters, Slots, monotonic_ns
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import SlotConfig
from tokenbucket.core.planning.attachment import AttachMode

PODS = 500
STARTS = 5
CHANGES = 20
RATES_BITS_PER_S = (1_000_000, 2_000_000)
DRAINED_PODS = (0, 100, 200, 300, 499)
QUIET_S = 2.0
"""A restarted agent says nothing when there is nothing to do: it has this long to do something."""
COMPILER = ("libbcc", "libLLVM", "libclang")


def address(number: int) -> str:
    """Of one pod."""
    return f"10.200.{number // 250}.{number % 250 + 1}"


def build(node: lab.Node) -> None:
    """Create the pods, point to point, as documents and as namespaces."""
    pods = [node.lab.pod(f"p{number}", [f"{address(number)}/32"], wire=False) for number in range(PODS)]
    batch("ip", (line for number, pod in enumerate(pods) for line in _wires(pod, number)))
    for number, pod in enumerate(pods):
        batch(
            "ip",
            (
                f"addr add {address(number)}/32 dev eth0",
                "link set eth0 up",
                "route add 169.254.1.1 dev eth0",
                "route add default via 169.254.1.1 dev eth0",
            ),
            pod.netns,
        )
    node.declare("pods.yaml", lab.pod_documents(*pods))
    node.declare("policy.yaml", lab.policy_document(RATES_BITS_PER_S[0]))


def _wires(pod: Pod, number: int) -> tuple[str, ...]:
    pod.veths.append(f"v{number}")
    return (
        f"link add {pod.veth} type veth peer name eth0 netns {pod.netns}",
        f"link set {pod.veth} up",
        f"route add {address(number)}/32 dev {pod.veth}",
    )


def verify(node: lab.Node) -> None:
    """Raise RuntimeError unless the kernel has a filter on each pod's veth, each with a slot of its own."""
    filters = node.filters()
    with Slots(node.pins) as slots:
        in_use = slots.read()
    if len(filters) != PODS or {slot for slot, _ in filters.values()} != set(in_use):
        raise RuntimeError(
            f"{len(filters)} filters and {len(in_use)} slots, not {PODS} of each; "
            "'tokenbucket detach --all' of anybody on this machine does that"
        )


def cold_starts(node: lab.Node) -> list[Figure]:
    """Start with an empty kernel. The last agent keeps running."""
    whole, loading, runs = [], [], []
    for start in range(STARTS):
        if start:
            node.agent.stop()
            clean()
        started_at_s = node.start_agent()
        done = node.wait_for("reconciled", complete=True)
        whole.append(lab.stamp_s(done) - started_at_s)
        loading.append(lab.stamp_s(node.events("started")[0]) - started_at_s)
        runs.append(done["seconds"])
        verify(node)
    return [
        below(f"cold start, exec to {PODS} limits", whole, 2, "s"),
        Figure("  of it, until the program is compiled and loaded", loading, "s"),
        Figure("  of it, the first reconcile run", runs, "s"),
    ]


class RateReader:
    """The pinned configuration of the slots, read as often as can be."""

    def __init__(self, slots: Iterable[int], count: int, pin: Path) -> None:
        self._slots = tuple(slots)
        self._type = layout.Config * count
        self._fd = syscall.open_pin(pin)
        self._reader = syscall.ArrayReader(self._fd, count, ctypes.sizeof(layout.Config), "tb_config")

    def all_have(self, bits_per_s: int) -> bool:
        """Return whether every slot has this rate."""
        configs = self._type.from_buffer_copy(self._reader.read())
        return all(configs[slot].bits_per_s == bits_per_s for slot in self._slots)

    def close(self) -> None:
        """Close the map."""
        os.close(self._fd)


def changes(node: lab.Node) -> list[Figure]:
    """Replace the file of the policy repeatedly."""
    with Slots(node.pins) as slots:
        reader = RateReader(slots.read(), slots.count, node.pins.maps / "tb_config")
    milliseconds, runs = [], []
    try:
        for change in range(1, CHANGES + 1):
            rate = RATES_BITS_PER_S[change % 2]
            runs_before = len(node.events("reconciled"))
            begin = node.declare("policy.yaml", lab.policy_document(rate))
            end = wait(lambda rate=rate: reader.all_have(rate) and time.monotonic(), pause_s=0.0002)
            milliseconds.append(1000 * (end - begin))
            runs.append(1000 * node.wait_for("reconciled", after=runs_before)["seconds"])
    finally:
        reader.close()
    return [
        below(f"new rate, rename to the last of {PODS} slots", milliseconds, 100, "ms"),
        Figure("  of it, the reconcile run", runs, "ms"),
    ]


def drain(node: lab.Node) -> None:
    """Send more than their bursts to a few pods."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in DRAINED_PODS:
            for _ in range(300):
                sender.sendto(bytes(1400), (address(number), 9))


def level(meters: Meters, config: SlotConfig) -> float:
    """Return how full a byte bucket is, in percent of its burst; negative in debt."""
    tokens_q = gcra.tokens_q(meters.bytes_tat, gcra.word_of(monotonic_ns()), config.bytes_burst_q)
    return 100 * tokens_q / config.bytes_burst_q


def restarts(node: lab.Node) -> list[Figure]:
    """Killed and started again, a few buckets being empty."""
    names = [f"p{number}" for number in DRAINED_PODS]
    replaced, actions, moved, levels, ready = [], [], [], [], []
    with Slots(node.pins) as slots:
        configs = {i: slot.config for i, slot in slots.read().items() if slot.owner.key.subject.name in names}
        for _ in range(STARTS):
            drain(node)
            filters, words = node.filters(), [slots.meters(index) for index in configs]
            levels += [level(slots.meters(index), config) for index, config in configs.items()]
            node.agent.stop()
            started_at_s = node.start_agent()
            ready.append(lab.stamp_s(node.wait_for("started")) - started_at_s)
            time.sleep(QUIET_S)
            replaced.append(len(set(filters.items()) ^ set(node.filters().items())))
            actions.append(sum(line["actions"] for line in node.events("reconciled")))
            moved.append(sum(slots.meters(index) != word for index, word in zip(configs, words, strict=True)))
    return [
        must_be("kill -9 and start: filters replaced", replaced, 0, ""),
        must_be("  actions of the new agent", actions, 0, ""),
        must_be(f"  meters moved, of {len(configs)} drained before", moved, 0, ""),
        Figure("  how full those were at the kill", levels, "%"),
        Figure("  exec to ready, program found loaded", ready, "s"),
    ]


def memory(pid: int) -> list[Figure]:
    """Return the memory of the process at the end."""
    process = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    mebibytes = int(status["VmRSS"].split()[0]) / 1024
    children = (process / "task" / process.name / "children").read_text().split()
    maps = (process / "maps").read_text()
    mapped = sum(name in maps for name in COMPILER)
    return [
        below(f"memory of the agent with {PODS} pods", [mebibytes], 64, "MiB"),
        must_be("  its child processes", [len(children)], 0, ""),
        must_be("  libraries of the compiler mapped", [mapped], 0, ""),
    ]


def report(attach: AttachMode = AttachMode.AUTO) -> bool:
    """Print the table. Returns whether every target is met."""
    with lab.node() as node:
        node.options = ("--attach", attach)
        build(node)
        figures = cold_starts(node)
        figures += changes(node) + memory(node.agent.process.pid)
        node.warn_if_repaired(PODS)
        figures += restarts(node)
        return print_table(f"One node, {PODS} pods, one policy, --attach {attach}", figures)


if __name__ == "__main__":
    for mode in (AttachMode.CLSACT, AttachMode.TCX):
        report(mode)
