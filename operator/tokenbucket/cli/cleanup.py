"""Define ``tokenbucket cleanup``, which removes everything that tokenbucket installed on all nodes."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tokenbucket.errors import ExitCode


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "turn enforcement off and remove all limits from the nodes, while Helm uninstalls the release"
    verb = verbs.add_parser("cleanup", help=text, description=text)
    verb.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", "default"),
        metavar="NAME",
        help="namespace of the release (default $POD_NAMESPACE)",
    )
    verb.add_argument(
        "--enforcement-configmap",
        default="tokenbucket",
        metavar="NAME",
        help="ConfigMap that sets the enforcement mode (default %(default)s)",
    )
    verb.add_argument(
        "--helm-release",
        default="tokenbucket",
        metavar="NAME",
        help="do nothing unless this Helm release owns the agents (default %(default)s)",
    )
    verb.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="maximum time to wait for the nodes (default %(default)s)",
    )
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Clean up all nodes. Nodes that did not respond are printed, and do not change the exit status."""
    from tokenbucket.controller.cleanup import Release, clean_up  # noqa: PLC0415 - the HTTP client is large

    release = Release(options.namespace, options.enforcement_configmap, options.helm_release)
    cleaned = asyncio.run(clean_up(release, options.timeout, print))
    if not cleaned:
        print(
            f"tokenbucket: namespace {release.namespace}: Helm release {release.helm_name} owns no agent, so "
            "nothing is cleaned; to clean the nodes without Helm, see docs/tasks/uninstall.md",
            file=sys.stderr,
        )
        return ExitCode.DONE
    print(f"{len(cleaned.clean)} nodes are clean")
    if cleaned.unreachable:
        nodes = ", ".join(cleaned.unreachable)
        print(
            f"tokenbucket: nodes {nodes}: did not report a cleanup; clean them with examples/detach.yaml",
            file=sys.stderr,
        )
    return ExitCode.DONE
