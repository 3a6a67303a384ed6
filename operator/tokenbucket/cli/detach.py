"""Define ``tokenbucket detach``, which removes the limits of one interface or all limits."""

from __future__ import annotations

import argparse
import errno
import sys

from tokenbucket.bpf.pins import Pins
from tokenbucket.cli.options import need_root, pins_options
from tokenbucket.cli.output import LogFormat, set_up_logs
from tokenbucket.core.api.policy import Direction
from tokenbucket.errors import ExitCode, IgnoreErrno
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.links import find_link
from tokenbucket.netlink.namespaces import named_namespaces
from tokenbucket.node import devices
from tokenbucket.node.visibility import check_visible, where


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "remove limits"
    verb = verbs.add_parser("detach", help=text, description=text, parents=[pins_options()])
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--all",
        action="store_true",
        help="detach all programs of tokenbucket on this machine, and remove all pins",
    )
    which.add_argument("--dev", metavar="IFACE", help="remove the limits that 'attach' set on an interface")
    verb.add_argument("--netns", help="network namespace of --dev: a name in /run/netns, or a path")
    verb.add_argument(
        "--direction", type=Direction, choices=list(Direction), help="direction of --dev (default both)"
    )
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Remove limits. With ``--all``, succeed also if nothing is attached.

    Raises UnseenError if there are limits that cannot be removed, or none is found and some cannot be read.
    """
    need_root()
    set_up_logs(LogFormat.TEXT, "warning")
    if options.all:
        removed = devices.detach_all(options.pins)
        print(f"{removed} {'program' if removed == 1 else 'programs'} detached")
        check_visible(options.pins, named_namespaces())  # others may belong to nodes inside containers
        print("all limits are removed")
        return ExitCode.DONE
    directions = [options.direction] if options.direction else list(Direction)
    device = devices.device(options.dev, options.netns)
    try:
        with IgnoreErrno(errno.ENOENT):  # nothing is loaded
            if devices.detach(options.pins, device, directions):
                print(f"{options.dev}: limit removed")
                return ExitCode.DONE
    except devices.RenamedError as error:
        print(f"tokenbucket: {error}", file=sys.stderr)
        return ExitCode.NOT_FOUND
    check_visible(options.pins, [device.namespace])
    print(f"tokenbucket: {options.dev}: {why_none(options.pins, device)}", file=sys.stderr)
    return ExitCode.NOT_FOUND


def why_none(pins: Pins, device: devices.Device) -> str:
    """Return why an interface has no limit."""
    with connect(device.namespace.path) as connection:
        exists = find_link(connection, device.name) is not None
    return f"no limit found ({where(pins)})" if exists else "no such interface in this namespace"
