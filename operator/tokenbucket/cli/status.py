"""Define ``tokenbucket status``, which reads the active limits from the kernel without an agent."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Sequence
from itertools import compress
from typing import Any

from tokenbucket import units
from tokenbucket.cli.options import need_root, output_options, pins_options
from tokenbucket.cli.output import Format, structured, table
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.limits import dry_run, gcra
from tokenbucket.core.limits.slot import PeerConfig, SlotConfig
from tokenbucket.errors import ExitCode, IgnoreErrno
from tokenbucket.netlink.connection import connect
from tokenbucket.node.device_slots import gone_devices
from tokenbucket.node.document import action_of, as_document, tokens
from tokenbucket.node.snapshot import LimitSnapshot, snapshot, unmetered_packets
from tokenbucket.node.visibility import check_hooks, check_visible, is_hidden, where

HEADER = (
    "LIMIT",
    "DIRECTION",
    "INTERFACE",
    "HOOK",
    "RATE",
    "BURST",
    "TOKENS",
    "CONFORMED",
    "DELAYED",
    "EXCEEDED",
    "GUARD",
    "ACTION",
    "POLICY",
)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "show the active limits"
    verb = verbs.add_parser("status", help=text, description=text, parents=[pins_options(), output_options()])
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Print all limits. The list is empty if nothing is loaded.

    Raises UnseenError if there are limits, or hooks, that cannot be read.
    """
    need_root()
    limits: list[LimitSnapshot] = []
    unmetered = 0
    with IgnoreErrno(errno.ENOENT):  # nothing is loaded
        limits, unmetered = snapshot(options.pins), unmetered_packets(options.pins)
    if options.output is not Format.TABLE:
        document = {"limits": [as_document(limit) for limit in limits], "unmeteredPackets": unmetered}
        print(structured(document, options.output))
    else:
        _print_table(limits, unmetered, options)
    check_visible(options.pins)
    check_hooks(limits)
    return ExitCode.DONE


def _print_table(limits: Sequence[LimitSnapshot], unmetered: int, options: argparse.Namespace) -> None:
    if not limits:
        print(f"nothing is limited ({where(options.pins)})")
    else:
        print(as_table(limits))
    for limit in limits:
        if not limit.places:
            print(f"{limit.slot.owner.key}: {why_not_attached(limit)}")
    if unmetered:
        print(
            f"{unmetered} packets were not limited because their filter refers to an unused slot; "
            "start the agent to repair it"
        )


def why_not_attached(limit: LimitSnapshot) -> str:
    """Return why a limit has no place. Raises KernelError."""
    if is_hidden(limit):
        return "its hook is not visible: this process may not enter other network namespaces"
    if isinstance(limit.slot.owner.key.subject, PodId):
        return "not attached: enforcement is off, or the agent has not attached it; the slot keeps its tokens"
    with connect() as connection:
        gone = gone_devices(connection, {limit.index: limit.slot})
    if gone:
        return "not attached: the interface is gone; the next 'attach' frees the slot"
    return "not attached: another program removed the filter; attach the limit again, or detach it"


def as_table(limits: Sequence[LimitSnapshot]) -> str:
    """Return the table, with the column of guards only if a limit has one."""
    shown = [name != "GUARD" or any(limit.guard for limit in limits) for name in HEADER]
    header, *rows = (tuple(compress(row, shown)) for row in (HEADER, *map(as_row, limits)))
    return table(header, rows)


def as_row(limit: LimitSnapshot) -> tuple[str, ...]:
    """Return a row of the table."""
    owner, config, stats = limit.slot.owner, limit.slot.config, limit.stats
    tokens_bytes, tokens_packets = tokens(limit)
    places = limit.places
    return (
        str(owner.key.subject),
        owner.key.direction,
        ",".join(place.interface for place in places) or "-",
        ",".join(sorted({str(place) for place in places})) or "-",
        _rate(config),
        _both(config.burst_bytes, units.format_bytes, config.burst_packets, _packets),
        _both(config.bits_per_s and 1, lambda _: units.format_bytes(tokens_bytes), tokens_packets, _packets),
        f"{stats.conform_packets} ({units.format_bytes(stats.conform_bytes)})",
        f"{stats.delayed_packets} ({units.format_bytes(stats.delayed_bytes)})",
        f"{stats.exceed_packets} ({units.format_bytes(stats.exceed_bytes)})",
        _guard(limit),
        _effect(limit),
        owner.policy or "-",
    )


def _guard(limit: LimitSnapshot) -> str:
    """Return the traffic that the guard of a limit dropped."""
    if not limit.guard:
        return "-"
    stats = limit.guard.stats
    return f"{stats.dropped_packets} ({units.format_bytes(stats.dropped_bytes)})"


def _rate(config: SlotConfig) -> str:
    """Return a text such as "100Mbit/s, per peer 10Mbit/s"."""
    parts = [rate for rate in (_rate_of(config),) if rate != "-" or not config.per_peer]
    if config.per_peer:
        parts.append(f"per peer {_rate_of(config.per_peer)}")
    return ", ".join(parts)


def _rate_of(config: SlotConfig | PeerConfig) -> str:
    return _both(config.bits_per_s, units.format_bit_rate, config.packets_per_s, units.format_packet_rate)


def _effect(limit: LimitSnapshot) -> str:
    """Return the treatment of excess packets, in Observe mode with the shares of bytes."""
    config, would = limit.slot.config, dry_run.describe(limit.slot.config, limit.stats)
    return f"{fate(config).removesuffix(')')}: {would})" if would else fate(config)


def fate(config: SlotConfig) -> str:
    """Return the treatment of excess packets."""
    action = action_of(config)
    if config.dscp is not None:
        action += f" DSCP {config.dscp}"
    if config.max_delay_q:
        action += f" {units.format_duration(config.max_delay_q // gcra.QUANTA_PER_NS)}"
        action += "" if config.longest_backlog_q or config.per_peer else " Fifo"
    return f"{action} (observed only)" if config.observe else action


def _both(first: int, format_first: Any, second: int | None, format_second: Any) -> str:  # noqa: ANN401
    parts = [format_first(first)] if first else []
    parts += [format_second(second)] if second else []
    return " ".join(parts) or "-"


def _packets(count: int) -> str:
    return f"{count}pkt"
