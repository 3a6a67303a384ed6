"""Define ``tokenbucket check``, which shows the limits that would run on this machine."""

from __future__ import annotations

import argparse
import os

from tokenbucket.cli.options import cni_results_option, need_root, output_options
from tokenbucket.cli.output import Format, structured, table
from tokenbucket.core.status.node_check import Ability
from tokenbucket.errors import ExitCode
from tokenbucket.node import preflight

_HEADER = ("PART", "RESULT", "DETAIL", "NEXT STEP")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "check which limits can run on this machine"
    verb = verbs.add_parser("check", help=text, description=text, parents=[output_options()])
    verb.add_argument(
        "--node", default=os.uname().nodename, metavar="NAME", help="name in the result (default: hostname)"
    )
    cni_results_option(verb)
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Print the result. Return UNSUPPORTED if no limit would run."""
    need_root()
    checked = preflight.check(options.node, options.cni_results)
    if options.output is Format.TABLE:
        rows = [(each.part, each.state.value, each.detail, each.action or "-") for each in checked.findings]
        print(table(_HEADER, rows))
        print(f"\n{checked.node}: {checked.ability.value}")
    else:
        print(structured(checked.as_document(), options.output))
    return ExitCode.UNSUPPORTED if checked.ability is Ability.NONE else ExitCode.DONE
