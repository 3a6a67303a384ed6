"""Define the options that all commands of the plugin share."""

from __future__ import annotations

import argparse
import enum


class Output(enum.StrEnum):
    """Values of ``-o``."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def is_structured(self) -> bool:
        """Return whether programs read the output."""
        return self in {Output.JSON, Output.YAML}


DEFAULTS = {
    "namespace": None,
    "all_namespaces": False,
    "selector": "",
    "context": None,
    "kubeconfig": None,
    "output": Output.TABLE,
    "no_color": False,
}


def shared_options() -> argparse.ArgumentParser:
    """Return a parser with the shared options. They may precede or follow the command.

    They have no defaults here, so that a command does not overwrite an option that precedes it.
    """
    parent = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parent.add_argument_group("shared options")
    group.add_argument("-n", "--namespace", metavar="NAME", help="namespace (default: of the context)")
    group.add_argument("-A", "--all-namespaces", action="store_true", help="all namespaces")
    group.add_argument("-l", "--selector", metavar="LABELS", help="label selector, such as app=web,tier!=db")
    group.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    group.add_argument(
        "--kubeconfig", metavar="FILE", help="kubeconfig (default: KUBECONFIG or ~/.kube/config)"
    )
    group.add_argument(
        "-o", "--output", type=Output, choices=list(Output), metavar="FORMAT",
        help="output format: table, wide, json or yaml",
    )  # fmt: skip
    group.add_argument("--no-color", action="store_true", help="print without color, as with NO_COLOR=1")
    return parent
