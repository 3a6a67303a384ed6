"""``tokenbucket inspect POD``: the machine of the Open Packet Processor behind a limit, live.

Its words and where they are here: docs/opp.md.
"""

from __future__ import annotations

import argparse
import errno
import sys

from tokenbucket import units
from tokenbucket.agent.snapshot import InForce, snapshot
from tokenbucket.bpf.slots import Stats
from tokenbucket.cli.exit_codes import ExitCode
from tokenbucket.cli.options import need_root, pins_options
from tokenbucket.cli.output import table
from tokenbucket.core import gcra
from tokenbucket.core.pod import PodId
from tokenbucket.core.policy import Direction
from tokenbucket.core.slot import SlotConfig
from tokenbucket.errors import KernelError

_LONG_MS = 86_400_000
PACKET_BYTES = 1514
"""The packet whose conditions are shown: a full Ethernet frame."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    text = "show the state machine of a limit"
    verb = verbs.add_parser("inspect", help=text, description=text, parents=[pins_options()])
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("pod", nargs="?", metavar="POD", help="NAME or NAMESPACE/NAME")
    which.add_argument("--dev", metavar="IFACE")
    verb.add_argument("--direction", type=Direction, choices=list(Direction))
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Prints one block for each direction that is limited."""
    need_root()
    found = [limit for limit in _read(options) if _is_meant(limit, options)]
    if not found:
        print(f"tokenbucket: {options.pod or options.dev}: is not limited", file=sys.stderr)
        return ExitCode.NOT_FOUND
    print("\n\n".join(machine(limit) for limit in found))
    return ExitCode.DONE


def _read(options: argparse.Namespace) -> list[InForce]:
    try:
        return snapshot(options.pins)
    except KernelError as error:
        if error.errno == errno.ENOENT:  # nothing is loaded
            return []
        raise


def _is_meant(limit: InForce, options: argparse.Namespace) -> bool:
    key = limit.slot.owner.key
    if options.direction and key.direction is not options.direction:
        return False
    if options.dev:
        return options.dev in {place.interface for place in limit.places} or str(key.subject) == options.dev
    return isinstance(key.subject, PodId) and options.pod in {key.subject.name, str(key.subject)}


def machine(limit: InForce) -> str:
    """The machine in words: context, registers, conditions, and how often each transition was taken."""
    owner, config = limit.slot.owner, limit.slot.config
    places = ", ".join(f"{place.interface} {place.hook}" for place in limit.places) or "no hook"
    lines = [
        f"flow context    {owner.key}",
        f"key             slot {limit.index}, the classid of the filter at {places}",
        f"state           {'observing' if config.observe else 'metering'}",
    ]
    now_q = gcra.word_of(limit.now_ns)
    if config.bits_per_s:
        lines += _byte_meter(config, limit.meters.bytes_tat, now_q)
    if config.packets_per_s:
        lines += _packet_meter(config, limit.meters.packets_tat, now_q)
    return "\n".join([*lines, "", _transitions(limit.stats, config)])


def _byte_meter(config: SlotConfig, tat: int, now_q: int) -> list[str]:
    cost_q = gcra.bytes_cost_q(PACKET_BYTES, config.bits_per_s)
    tokens = gcra.bytes_in(gcra.tokens_q(tat, now_q, config.bytes_burst_q), config.bits_per_s)
    return _meter(
        "bytes",
        f"rate {units.format_bit_rate(config.bits_per_s)}, burst {units.format_bytes(config.burst_bytes)}",
        f"{tokens} bytes",
        f"a packet of {PACKET_BYTES} bytes",
        (tat, now_q, cost_q, config.bytes_burst_q),
    )


def _packet_meter(config: SlotConfig, tat: int, now_q: int) -> list[str]:
    cost_q = gcra.packets_cost_q(1, config.packets_per_s)
    tokens = gcra.tokens_q(tat, now_q, config.packets_burst_q) // cost_q
    return _meter(
        "packets",
        f"rate {units.format_packet_rate(config.packets_per_s)}, burst {config.burst_packets} packets",
        f"{tokens} packets",
        "a packet",
        (tat, now_q, cost_q, config.packets_burst_q),
    )


def _meter(name: str, limits: str, tokens: str, packet: str, state: tuple[int, int, int, int]) -> list[str]:
    tat, now_q, cost_q, burst_q = state
    case = gcra.case_of(tat, now_q, cost_q, burst_q)
    colour = "red (exceeds)" if case is gcra.Case.TOO_FAST else "green (conforms)"
    left_q = gcra.tokens_q(tat, now_q, burst_q)
    return [
        "",
        f"{name} meter",
        f"  global registers   {limits}",
        f"  flow register      tat = {tat} quanta, now {_ahead(tat, now_q)}; tokens {tokens}",
        f"  colour             {colour}, for {packet} at this moment",
        f"  condition 1        tat <= now - cost        {left_q >= min(cost_q, burst_q)}   (not too fast)",
        f"  condition 2        tat >= now - burst       {case is not gcra.Case.IDLE}   (not idle)",
    ]


def _ahead(tat: int, now_q: int) -> str:
    if gcra.is_ahead(tat, now_q):
        return f"{((tat - now_q) % 2**64) / gcra.QUANTA_PER_NS / 1e6:.3f} ms behind it"
    past_ms = (now_q - tat) % 2**64 / gcra.QUANTA_PER_NS / 1e6
    return f"{past_ms:.3f} ms past it" if past_ms < _LONG_MS else "long past it"


def _transitions(stats: Stats, config: SlotConfig) -> str:
    refused = "drop" if config.dscp is None else f"mark {config.dscp}"
    refused = "forward (observed)" if config.observe else refused
    return table(
        ("CASE", "VERDICT", "UPDATE", "PACKETS"),
        [
            (gcra.Case.IN_WINDOW, "forward", "tat += cost", str(stats.in_window_packets)),
            (gcra.Case.IDLE, "forward", "tat = now - burst + cost", str(stats.idle_packets)),
            (gcra.Case.TOO_FAST, refused, "none", str(stats.exceed_packets)),
            (gcra.Case.TOO_FAST, "forward in the reserve", "tat += cost", str(stats.reserve_packets)),
        ],
    )
