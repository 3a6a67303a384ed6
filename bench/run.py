"""``make bench``: all benchmarks in turn, every figure beside its target. Exits 1 when one was missed."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from pathlib import Path

import arrival
import capacity
import cost
import exactness
import scale


def machine() -> str:
    """Return the properties of the machine that the figures depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].split(":")[1].strip() if models else platform.machine()
    return f"Linux {platform.release()}, {os.cpu_count()} CPUs ({model}), load before {load}"


def options() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="every cell of exactness.py: 3 minutes, not 1.5")
    return parser.parse_args()


def main() -> int:
    """Run the benchmarks. Returns the exit status."""
    full = options().full
    if os.geteuid() != 0:
        print("make bench: needs root, for network namespaces and BPF", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(machine())
    try:
        met = [cost.report()]
        capacity.report()
        met += [scale.report(), arrival.report(), exactness.report(full=full)]
    except KeyboardInterrupt:
        print("\nstopped; everything is cleaned up")
        return 130
    print("\nevery target is met" if all(met) else "\na target was missed")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
