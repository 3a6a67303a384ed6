"""``make bench-peers``: bench/peers.py in a virtual machine, with a kernel that has all it needs."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from cluster.binaries import cni_plugins
from cluster.errors import ClusterError
from tests.vm.kernels import Kernel
from tests.vm.machine import run_programs

KERNELS = {"6.12": Kernel("6.12", "trixie"), "6.1": Kernel("6.1", "bookworm")}
TIMEOUT_S = 14400.0


def main() -> int:
    """Run the comparison in a machine. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="write every sample there, as JSON")
    parser.add_argument("--kernel", choices=KERNELS, default="6.12", help="series of Debian's kernel")
    given, passed_on = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="bench-peers-", dir="/var/tmp") as name:
        folder = Path(name)
        words = ["bench/peers.py", "--plugins", str(cni_plugins()), "--results", str(folder / "results.json")]
        print(
            f"in a virtual machine; it tells how far it is in {folder}/peers.log", file=sys.stderr, flush=True
        )
        try:
            kernel = KERNELS[given.kernel]
            measured = {"memory": ["bench/memory.py"], "peers": [*words, *passed_on]}
            programs = {"begin": ["bench/warm.py"], **measured}  # in the order of their names
            ended = run_programs(kernel, programs, folder, TIMEOUT_S, instruction_clock=True)
        except ClusterError as error:
            print(error, file=sys.stderr)
            return 1
        for each in ended.values():
            print(each.output)
            if not each.passed:  # by a missed target, or by an error
                print(f"end of the console:\n{each.console}", file=sys.stderr)
        if given.results and (folder / "results.json").exists():
            given.results.write_text((folder / "results.json").read_text())
    return 0 if all(each.passed for each in ended.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
