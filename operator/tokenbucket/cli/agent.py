"""``tokenbucket agent``: keeps limits in force until it is told to stop, and leaves them in force then."""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenbucket.agent import standalone
from tokenbucket.bpf.pins import DEFAULT_SLOTS
from tokenbucket.cli.exit_codes import ExitCode
from tokenbucket.cli.logs import LogFormat, set_up
from tokenbucket.cli.options import need_root, pins_options

_MAX_SLOTS = 1 << 16


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    text = "limit the pods of this machine"
    verb = verbs.add_parser("agent", help=text, description=text, parents=[pins_options()])
    verb.add_argument(
        "--manifests", type=Path, required=True, metavar="DIR", help="folder of policies and pods"
    )
    verb.add_argument(
        "--slots", type=_slots, default=DEFAULT_SLOTS, help="limits there is room for (default %(default)s)"
    )
    verb.add_argument("--log-format", type=LogFormat, choices=list(LogFormat), default=LogFormat.TEXT)
    verb.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Runs the agent in the foreground."""
    need_root()
    set_up(options.log_format, options.log_level)
    standalone.run(options.manifests, options.pins, options.slots)
    return ExitCode.DONE


def _slots(text: str) -> int:
    slots = int(text)
    if not 2 <= slots <= _MAX_SLOTS:
        raise argparse.ArgumentTypeError(f"{slots}: must be from 2 to {_MAX_SLOTS}")
    return slots
