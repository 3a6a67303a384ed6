"""``tokenbucket detach``: lifts limits, of one interface or all of them."""

from __future__ import annotations

import argparse
import errno
import sys

from tokenbucket.cli.exit_codes import ExitCode
from tokenbucket.cli.options import need_root, pins_options
from tokenbucket.core.api.policy import Direction
from tokenbucket.errors import KernelError
from tokenbucket.node import devices


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    text = "lift limits"
    verb = verbs.add_parser("detach", help=text, description=text, parents=[pins_options()])
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="every filter and pin of ours on this machine")
    which.add_argument("--dev", metavar="IFACE", help="what 'attach' put on an interface")
    verb.add_argument("--netns", help="network namespace of --dev: a name in /run/netns, or a path")
    verb.add_argument("--direction", type=Direction, choices=list(Direction), help="of --dev (default both)")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Detaches. Fine where nothing is attached, with ``--all``."""
    need_root()
    if options.all:
        removed = devices.detach_all(options.pins)
        print(f"{removed} filters removed; nothing of ours is left")
        return ExitCode.DONE
    directions = [options.direction] if options.direction else list(Direction)
    if _detach(options, directions):
        print(f"{options.dev}: not limited any more")
        return ExitCode.DONE
    print(f"tokenbucket: {options.dev}: has no limit of ours", file=sys.stderr)
    return ExitCode.NOT_FOUND


def _detach(options: argparse.Namespace, directions: list[Direction]) -> bool:
    try:
        return devices.detach(options.pins, devices.device(options.dev, options.netns), directions)
    except KernelError as error:
        if error.errno == errno.ENOENT:  # nothing is loaded
            return False
        raise
