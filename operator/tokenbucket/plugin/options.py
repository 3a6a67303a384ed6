"""Define the options that all commands of the plugin share."""

from __future__ import annotations

import argparse
import enum
import math
from collections.abc import Callable
from typing import Any

from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit


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
_FLAGS = {"namespace": "-n", "all_namespaces": "-A", "selector": "-l", "output": "-o"}


def refuse_unused(options: argparse.Namespace) -> None:
    """Raise PluginError for a shared option without an effect, because its user expects one."""
    unused = {
        "check": ["all_namespaces", *(["selector"] if getattr(options, "nodes", None) else [])],
        "explain": ["all_namespaces", "selector"],
        "status": ["all_namespaces", "selector"] if getattr(options, "policy", None) else [],
        "suggest": ["all_namespaces", "selector"],
        "sysdump": list(_FLAGS),
    }
    given = [each for each in unused.get(options.command, ()) if getattr(options, each) != DEFAULTS[each]]
    if given:
        flags = " and ".join(_FLAGS[each] for each in given)
        text = f"{options.command}: {flags}: no effect with these arguments; remove {flags}"
        raise PluginError(text, PluginExit.USAGE)


def word_of(kind: type[enum.Enum]) -> Callable[[str], Any]:
    """Return the type of an argument with fixed words. Its error names them."""

    def parse(text: str) -> enum.Enum:
        try:
            return kind(text)
        except ValueError:
            words = ", ".join(str(each.value) for each in kind)
            raise argparse.ArgumentTypeError(f"{text!r}: must be one of {words}") from None

    return parse


def positive(text: str) -> int:
    """Return a number of at least 1, for an argument."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an integer of at least 1")
    return number


def within(least: float, most: float) -> Callable[[str], float]:
    """Return the type of an argument with a number from ``least`` to ``most``."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number from {least:g} to {most:g}")
        return number

    return parse


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
