"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tokenbucket.bpf.pins import BPFFS, ROOT, Pins
from tokenbucket.cli.logs import LogFormat, set_up
from tokenbucket.cli.output import Format
from tokenbucket.errors import UnsupportedError


def pins_options() -> argparse.ArgumentParser:
    """``--pins``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--pins",
        type=_below_bpffs,
        default=Pins(),
        metavar="DIR",
        help=f"folder of the kernel objects' names (default {ROOT}); agents and commands share what is there",
    )
    return parent


def output_options() -> argparse.ArgumentParser:
    """``-o``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "-o",
        "--output",
        type=Format,
        choices=list(Format),
        default=Format.TABLE,
        metavar="FORMAT",
        help="table, json or yaml",
    )
    return parent


def log_options() -> argparse.ArgumentParser:
    """``--log-format`` and ``--log-level``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--log-format", type=LogFormat, choices=list(LogFormat), default=LogFormat.TEXT)
    parent.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return parent


def metrics_options() -> argparse.ArgumentParser:
    """``--metrics-address``."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--metrics-address",
        type=address,
        metavar="HOST:PORT",
        help="answer /metrics there, in the format of Prometheus (default: nowhere)",
    )
    return parent


def set_up_logs(options: argparse.Namespace) -> None:
    """Logs as those options say."""
    set_up(options.log_format, options.log_level)


def address(text: str) -> tuple[str, int]:
    """A host and a port of TCP, such as ``127.0.0.1:80`` or ``[::1]:80``; ``:80`` is every address, of IPv4
    and IPv6.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: must be HOST:PORT, or :PORT for every address")
    return host.strip("[]"), int(port)


def need_root() -> None:
    """Raises UnsupportedError unless this is root."""
    if os.geteuid() != 0:
        raise UnsupportedError("needs root: BPF and traffic control are the kernel's")


def _below_bpffs(text: str) -> Pins:
    path = Path(text).resolve()
    if path == BPFFS or BPFFS not in path.parents or "." in str(path):
        raise argparse.ArgumentTypeError(f"{text}: must be below {BPFFS}, and a bpffs knows no dots in names")
    return Pins(path)
