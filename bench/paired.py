"""``make bench BASE=commit``: compare this tree with another commit, by turns in one run.

Each run of a benchmark is a process that uses the code and the benchmark of one of the trees. The trees take
turns, so that other work on the machine disturbs both. The tables have the median, the least and the most of
the runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import figures_of, short
from run import machine

ROOT = Path(__file__).parents[1]
ROUNDS = {"cost": 11, "scale": 3, "arrival": 5}
TIMEOUT_S = 1800
Samples = dict[str, list[float]]


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Provide a work tree of a commit."""
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        tree = Path(folder, "tree")
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True)


def run(tree: Path, name: str) -> dict[str, float]:
    """Run one benchmark of a tree with the code of that tree."""
    environment = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'operator'}"}
    command = [sys.executable, str(tree / "bench" / f"{name}.py")]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{tree}: {name}: {done.stderr[-2000:]}")
    return figures_of(done.stdout)


def compare(name: str, base: Path, rounds: int) -> None:
    """Print the table of one benchmark."""
    samples: tuple[Samples, Samples] = (defaultdict(list), defaultdict(list))
    for number in range(rounds):
        order = ((base, 0), (ROOT, 1)) if number % 2 == 0 else ((ROOT, 1), (base, 0))
        for tree, side in order:
            print(f"{name}: round {number + 1} of {rounds}, {'this' if side else 'base'}", file=sys.stderr)
            for figure, value in run(tree, name).items():
                samples[side][figure].append(value)
    before, after = samples
    print(f"\n{name}, {rounds} rounds\n  {'':50}{'base':>26}{'this':>26}{'this/base':>11}")
    for figure in after:
        if figure in before:
            medians = [statistics.median(side[figure]) for side in samples]
            ratio = f"{medians[1] / medians[0]:.3f}" if medians[0] else ""
            print(f"  {figure:50}{spread(before[figure]):>26}{spread(after[figure]):>26}{ratio:>11}")
    for figure in before.keys() ^ after.keys():
        print(f"  {figure}: only in one of the trees")


def spread(values: list[float]) -> str:
    """Return the median, the least and the most."""
    return f"{short(statistics.median(values))} ({short(min(values))}-{short(max(values))})"


def options() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("--only", nargs="+", choices=[*ROUNDS], default=[*ROUNDS], help="these benchmarks")
    parser.add_argument("--rounds", type=int, help="number of runs in each tree")
    return parser.parse_args()


def main() -> int:
    """Run the benchmarks. Return the exit status."""
    given = options()
    if os.geteuid() != 0:
        print("make bench: needs root, for network namespaces and BPF", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    with checked_out(given.base) as base:
        for name in given.only:
            compare(name, base, given.rounds or ROUNDS[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
