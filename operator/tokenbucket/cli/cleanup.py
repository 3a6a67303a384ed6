"""``tokenbucket cleanup``: removes everything of ours from every node of a cluster."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tokenbucket.cli.exit_codes import ExitCode


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    text = "switch enforcement off in a cluster and remove everything from its nodes, before uninstalling"
    verb = verbs.add_parser("cleanup", help=text, description=text)
    verb.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", "default"),
        metavar="NAME",
        help="of the release (default $POD_NAMESPACE)",
    )
    verb.add_argument("--enforcement-configmap", default="tokenbucket", metavar="NAME")
    verb.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait (default %(default)s)",
    )
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Cleans up; nodes that could not be reached are named, and are no failure."""
    from tokenbucket.controller.cleanup import clean_up  # noqa: PLC0415 - the HTTP client is large

    cleaned = asyncio.run(clean_up(options.namespace, options.enforcement_configmap, options.timeout, print))
    print(f"{len(cleaned.clean)} nodes are clean")
    if cleaned.unreachable:
        nodes = ", ".join(cleaned.unreachable)
        print(f"tokenbucket: not reached: {nodes}; clean each by examples/detach.yaml", file=sys.stderr)
    return ExitCode.DONE
