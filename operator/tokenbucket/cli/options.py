"""Define the options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tokenbucket.bpf.pins import BPFFS, ROOT, Pins
from tokenbucket.cli.output import Format, LogFormat
from tokenbucket.core.planning.attachment import AttachMode
from tokenbucket.errors import UnsupportedError


def pins_options() -> argparse.ArgumentParser:
    """Return a parser with ``--pins``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--pins",
        type=_below_bpffs,
        default=Pins(),
        metavar="DIR",
        help=f"bpffs directory of the maps and programs, shared by agents and commands (default {ROOT})",
    )
    return parent


def output_options() -> argparse.ArgumentParser:
    """Return a parser with ``-o``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "-o",
        "--output",
        type=Format,
        choices=list(Format),
        default=Format.TABLE,
        metavar="FORMAT",
        help="output format: table, json or yaml",
    )
    return parent


def log_options() -> argparse.ArgumentParser:
    """Return a parser with ``--log-format`` and ``--log-level``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--log-format", type=LogFormat, choices=list(LogFormat), default=LogFormat.TEXT)
    parent.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return parent


def protection_options() -> argparse.ArgumentParser:
    """Return a parser with ``--protected-namespace``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--protected-namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="reject policies in it without the label tokenbucket.dev/allow-protected=true; repeatable",
    )
    return parent


def metrics_options() -> argparse.ArgumentParser:
    """Return a parser with ``--metrics-address`` and ``--metrics-tls``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--metrics-address",
        type=address,
        metavar="HOST:PORT",
        help="serve Prometheus metrics at this address (default: no metrics)",
    )
    parent.add_argument(
        "--metrics-tls",
        type=Path,
        nargs=2,
        metavar=("CERT", "KEY"),
        help="serve metrics over TLS with these PEM files, which are read again every hour",
    )
    return parent


def address(text: str) -> tuple[str, int]:
    """Parse a TCP address such as ``127.0.0.1:80`` or ``[::1]:80``.

    ``:80`` means all IPv4 and IPv6 addresses. Raises ArgumentTypeError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: must be HOST:PORT, or :PORT for every address")
    return host.strip("[]"), int(port)


def need_root() -> None:
    """Check that the user is root. Raises UnsupportedError."""
    if os.geteuid() != 0:
        raise UnsupportedError("needs root to change BPF programs and traffic control; run as root")


def _below_bpffs(text: str) -> Pins:
    path = Path(os.path.realpath(text))  # Path.resolve raises RuntimeError for a loop of links
    if path == BPFFS or BPFFS not in path.parents or "." in str(path):
        raise argparse.ArgumentTypeError(f"{text}: must be below {BPFFS} and contain no dots")
    return Pins(path)


def attach_option(verb: argparse.ArgumentParser) -> None:
    """Add the option for the attachment mechanism."""
    verb.add_argument(
        "--attach",
        type=AttachMode,
        choices=list(AttachMode),
        default=AttachMode.AUTO,
        help="clsact filters, tcx links (Linux 6.6), or tcx only where needed (default %(default)s)",
    )


def cni_results_option(group: argparse._ActionsContainer) -> None:
    """Add the option for the directory of the CNI result cache."""
    group.add_argument(
        "--cni-results",
        type=Path,
        default=Path("/var/lib/cni/results"),
        metavar="DIR",
        help="directory of the CNI result cache (default %(default)s)",
    )
