"""``make demo``: pods of a made-up node, limited by examples/policy.yaml. Takes about 55 seconds.

The scenes: traffic before and after the limit, a rate changed by editing the file, and the limit
holding while the agent is killed and started again. Exits 1 if a pod gets more than 5 % above its limit, if
UDP gets more than 5 % below, or if TCP gets less than half.
``make picture`` writes the picture of the README from the same measurements.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import lab
import picture
import plotext

from tests.netns.lab import Pod
from tests.observer import open_counters, take

HERE = Path(__file__).resolve().parent
PINS = "/sys/fs/bpf/tokenbucket_demo"
TOKENBUCKET = [str(Path(sys.executable).parent / "tokenbucket")]
OFFERED = "60M"
STEP_S = 0.5
SETTLE_S = 1.5
TOLERANCE = 0.05
TOLERANCE_BELOW = {"UDP": TOLERANCE, "TCP": 0.5}
"""A TCP sender finds the rate itself, and more slowly if the machine is busy."""
NEW_WEB_RATE = 25_000_000
_SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass
class Show:
    """The demonstration: its processes and measurements."""

    folder: Path
    pods: dict[str, Pod]
    load: list[subprocess.Popen[bytes]] = field(default_factory=list)
    agent: subprocess.Popen[bytes] | None = None
    agent_options: tuple[str, ...] = ()
    times_s: list[float] = field(default_factory=list)
    mbits: dict[str, list[float]] = field(default_factory=lambda: {pod.name: [] for pod in lab.PODS})
    failed: list[str] = field(default_factory=list)
    events: list[picture.Event] = field(default_factory=list)
    _counters: dict[str, list[IO[str]]] = field(init=False)
    rates: dict[str, int] = field(default_factory=lambda: {pod.name: pod.rate_bits_per_s for pod in lab.PODS})

    def __post_init__(self) -> None:
        self._counters = {name: pod.inside(open_counters) for name, pod in self.pods.items()}

    def start_load(self) -> None:
        """Send UDP or TCP from the client to each pod, far above every limit."""
        for pod in lab.PODS:
            self.load.append(self.pods[pod.name].popen("iperf3", "-s", "-1", **_SILENT))
        time.sleep(0.5)
        for pod in lab.PODS:
            # With -b, a TCP sender would make up for the time of the limit.
            load = f"-u -l 1200 -b {OFFERED}" if pod.protocol == "UDP" else f"--fq-rate {OFFERED}"
            command = f"iperf3 -c {pod.host} {load} -t 0".split()
            self.load.append(self.pods["client"].popen(*command, **_SILENT))
        time.sleep(1)

    def start_agent(self) -> None:
        """Start the agent of the node, on a folder of manifests."""
        log = (self.folder.parent / "agent.log").open("ab")
        command = [
            *TOKENBUCKET,
            "agent",
            "--manifests",
            str(self.folder),
            "--pins",
            PINS,
            *self.agent_options,
        ]
        self.agent = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_limited()

    def _wait_until_limited(self) -> None:
        for _ in range(100):
            result = subprocess.run([*self._verb("status"), "-o", "json"], capture_output=True, check=False)
            if result.returncode == 0 and result.stdout.count(b'"direction"') >= len(lab.PODS):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the agent limits nothing: {(self.folder.parent / 'agent.log').read_text()}")

    def kill_agent(self) -> None:
        """As a crash would."""
        assert self.agent
        self.agent.kill()
        self.agent.wait()
        self.agent = None

    def measure(self, title: str, seconds: float) -> dict[str, float]:
        """Return samples throughput. Returns the mean of each pod in bit/s, after a moment to settle."""
        print(f"\n{title}")
        samples: dict[str, list[float]] = {pod.name: [] for pod in lab.PODS}
        start = time.monotonic()
        before = {pod.name: take(self._counters[pod.name]) for pod in lab.PODS}
        then = start
        while time.monotonic() - start < seconds:
            time.sleep(STEP_S)
            now = time.monotonic()
            self.times_s.append(self.times_s[-1] + now - then if self.times_s else now - then)
            for pod in lab.PODS:
                sooner, later = before[pod.name], take(self._counters[pod.name])
                rate = (later.bytes - sooner.bytes) * 8 / (later.after_s - sooner.after_s)
                before[pod.name] = later
                self.mbits[pod.name].append(rate / 1e6)
                if now - start > SETTLE_S + STEP_S:
                    samples[pod.name].append(rate)
            then = now
        return {name: sum(values) / len(values) for name, values in samples.items()}

    def table(self, means: dict[str, float], *, limited: bool = True) -> None:
        """Print the throughput per pod, and whether it equals the declared rate."""
        for pod in lab.PODS:
            mean, rate = means[pod.name], self.rates[pod.name]
            line = f"  {pod.name:6} {pod.style:16} {mean / 1e6:7.2f} Mbit/s"
            if limited:
                error = mean / rate - 1
                good = -TOLERANCE_BELOW[pod.protocol] <= error <= TOLERANCE
                line += f"   limit {rate / 1e6:5.1f} Mbit/s   {error:+7.2%}   {'ok' if good else 'MISSED'}"
                if not good:
                    self.failed.append(f"{pod.name}: {mean:.0f} bit/s instead of {rate}")
            print(line)

    def _verb(self, verb: str) -> list[str]:
        return [*TOKENBUCKET, verb, "--pins", PINS]

    def status(self) -> None:
        """Print the limits of the kernel, with or without an agent."""
        print("\n$ tokenbucket status")
        print(
            subprocess.run(self._verb("status"), check=True, capture_output=True, text=True).stdout.rstrip()
        )

    def plot(self) -> None:
        """Print the throughput over time."""
        for pod in lab.PODS:
            plotext.plot(self.times_s, self.mbits[pod.name], label=pod.name)
        plotext.title("received by each pod, Mbit/s over seconds")
        plotext.plotsize(100, 24)
        plotext.theme("clear")
        plot = plotext.build()
        print(plot if sys.stdout.isatty() else plotext.uncolorize(plot))

    def run(self) -> None:
        """Play all scenes."""
        self.start_load()
        self.change("no limit", None)
        self.table(self.measure("No limit yet", 5), limited=False)
        self.start_agent()
        self.change("policy\napplied: 10M", 10)
        self.table(self.measure("tokenbucket agent --manifests DIR, with examples/policy.yaml", 7))
        self.status()
        policy = self.folder / "policy.yaml"
        policy.write_text(policy.read_text().replace("bits: 10M", "bits: 25M"))
        self.change("edited:\n25M", NEW_WEB_RATE / 1e6)
        self.rates |= dict.fromkeys(("web-0", "web-1"), NEW_WEB_RATE)
        self.table(self.measure("policy.yaml edited: web from 10M to 25M", 7))
        self.kill_agent()
        self.change("agent\nkilled", NEW_WEB_RATE / 1e6)
        self.table(self.measure("Agent killed (-9): the kernel still enforces the limits", 6))
        self.start_agent()
        self.change("agent\nstarted", NEW_WEB_RATE / 1e6)
        self.table(self.measure("Agent restarted: the new agent adopts the limits", 6))
        self.remove_policy()
        self.table(self.measure("policy.yaml deleted", 4), limited=False)
        self.plot()

    def remove_policy(self) -> None:
        """Delete the file, and wait until the agent has removed the limits."""
        self.change("policy\ndeleted", None)
        (self.folder / "policy.yaml").unlink()

    def change(self, text: str, limit_mbits: float | None) -> None:
        """Note a change for the picture."""
        self.events.append(picture.Event(self.times_s[-1] if self.times_s else 0, text, limit_mbits))

    def picture(self) -> str:
        """Return the picture of the pods with the label app=web."""
        lines = [picture.Line(f"{pod.name}, {pod.protocol}", self.mbits[pod.name]) for pod in lab.PODS[:2]]
        title = "Mbit/s received by two pods of one policy, 60 Mbit/s offered to each"
        return picture.svg(title, self.times_s, lines, self.events)

    def close(self) -> None:
        """End everything that was started."""
        processes = [*self.load, *([self.agent] if self.agent else [])]
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def stage() -> Iterator[Show]:
    """Provide the folder of manifests, and remove it at the end. The namespaces end with the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="tokenbucket-demo-") as folder:
        manifests = Path(folder, "manifests")
        manifests.mkdir()
        (manifests / "policy.yaml").write_text((HERE.parent / "policy.yaml").read_text())
        (manifests / "pods.yaml").write_text(lab.manifests())
        show = Show(manifests, lab.build())
        try:
            yield show
        finally:
            show.close()


def main() -> int:
    """Run the demonstration. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Limits pods without a cluster.")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also write a picture, as SVG")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("make demo: needs root, for network namespaces and BPF", file=sys.stderr)
        return 2
    try:
        with stage() as show:
            show.run()
            if given.picture:
                given.picture.write_text(show.picture())
    except KeyboardInterrupt:
        print("\nstopped; everything is cleaned up")
        return 130
    for failure in show.failed:
        print(f"MISSED {failure}")
    print("a limit did not hold" if show.failed else "every limit held: at most 5 % above the rate")
    return 1 if show.failed else 0


if __name__ == "__main__":
    sys.exit(main())
