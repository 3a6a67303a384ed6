"""``python -m cluster up|down|status|env|build``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from .binaries import binaries
from .cluster import Cluster, failures, find
from .errors import ClusterError
from .images import standard_images
from .lifecycle import down, up
from .virtual_machine import kernel, launcher


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return 1 if it fails, and 3 if no cluster exists."""
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    commands = {"build": _build, "up": _up, "down": _down, "status": _status, "env": _env}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--vm", action="store_true", help="build, up: also the node in a virtual machine")
    chosen = parser.parse_args(arguments)
    try:
        return commands[chosen.command](chosen)
    except ClusterError as error:
        print(f"cluster {chosen.command}: {error}", file=sys.stderr)
        return 1


def _build(chosen: argparse.Namespace) -> int:
    """Fill the cache, which takes long."""
    standard_images(binaries(_say), _say)
    if chosen.vm:
        kernel(_say)
        launcher()
    return 0


def _up(chosen: argparse.Namespace) -> int:
    _print_environment(up(_say, vm=chosen.vm))
    return 0


def _down(_: argparse.Namespace) -> int:
    down()
    return 0


def _status(_: argparse.Namespace) -> int:
    cluster = find()
    if cluster is None:
        print("no cluster")
        return 3
    wrong = failures(cluster)
    for among in cluster.components():
        print(f"{among.name}: {', '.join(among.names())}")
    print("\n".join(wrong) if wrong else "all well")
    return 1 if wrong else 0


def _env(_: argparse.Namespace) -> int:
    cluster = find()
    if cluster is None:
        print("no cluster: python -m cluster up", file=sys.stderr)
        return 3
    _print_environment(cluster)
    return 0


def _print_environment(cluster: Cluster) -> None:
    """Print variables for ``eval "$(python -m cluster env)"``."""
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    print(f'export PATH={shlex.quote(str(cluster.place.programs))}:"$PATH"')
    for box in map(cluster.box, cluster.record.boxes):
        print(f"# a shell in {box.name}: {shlex.join(box.argv(['bash']))}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
