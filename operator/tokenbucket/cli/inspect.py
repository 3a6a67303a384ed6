"""Define ``tokenbucket inspect``, which shows a limit as an Open Packet Processor machine.

Terms: docs/contributing/open-packet-processor.md.
"""

from __future__ import annotations

import argparse
import errno
import sys

from tokenbucket import units
from tokenbucket.cli.detach import why_none
from tokenbucket.cli.options import cni_results_option, need_root, pins_options
from tokenbucket.cli.output import table
from tokenbucket.cli.status import why_not_attached
from tokenbucket.cni import namespaces_of
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import Owner, PeerConfig, SlotConfig
from tokenbucket.core.limits.stats import Stats
from tokenbucket.errors import ExitCode, IgnoreErrno
from tokenbucket.netlink.namespaces import named_namespace
from tokenbucket.node.devices import device
from tokenbucket.node.document import fullness
from tokenbucket.node.snapshot import GuardSnapshot, LimitSnapshot, snapshot
from tokenbucket.node.visibility import check_hooks, check_visible

_LONG_MS = 86_400_000
_PEERS_SHOWN = 10
PACKET_BYTES = 1514
"""Size of the example packet: a full Ethernet frame, in bytes."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "show the state of one limit in detail"
    verb = verbs.add_parser("inspect", help=text, description=text, parents=[pins_options()])
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("pod", nargs="?", metavar="POD", help="NAME or NAMESPACE/NAME")
    which.add_argument("--dev", metavar="IFACE")
    verb.add_argument("--direction", type=Direction, choices=list(Direction))
    cni_results_option(verb)
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Print one block for each limited direction. Raises UnseenError if a hook cannot be seen."""
    need_root()
    found: list[LimitSnapshot] = []
    with IgnoreErrno(errno.ENOENT):  # nothing is loaded
        found = [limit for limit in snapshot(options.pins, with_peers=True) if _is_meant(limit, options)]
    if not found:
        check_visible(options.pins)
        print(f"tokenbucket: {options.pod or options.dev}: {_why_none(options)}", file=sys.stderr)
        return ExitCode.NOT_FOUND
    print("\n\n".join(machine(limit) for limit in found))
    check_hooks(found)
    return ExitCode.DONE


def _why_none(options: argparse.Namespace) -> str:
    """Return why there is no limit, as far as the node shows it."""
    if options.dev:
        return why_none(options.pins, device(options.dev, None))
    if any(map(named_namespace, namespaces_of(options.cni_results, options.pod))):
        return (
            "no limit found: the pod is on this node; no policy selects it, enforcement is off, or its limit "
            "failed; see 'kubectl tokenbucket explain pod'"
        )
    return "no limit found: the pod has no CNI result with a namespace here, and may be on another node"


def _is_meant(limit: LimitSnapshot, options: argparse.Namespace) -> bool:
    key = limit.slot.owner.key
    if options.direction and key.direction is not options.direction:
        return False
    if options.dev:
        return options.dev in {place.interface for place in limit.places} or str(key.subject) == options.dev
    return isinstance(key.subject, PodId) and options.pod in {key.subject.name, str(key.subject)}


def machine(limit: LimitSnapshot) -> str:
    """Return the context, registers, conditions and transition counters of a limit as text."""
    owner, config = limit.slot.owner, limit.slot.config
    places = ", ".join(f"{place.interface} {place.hook}" for place in limit.places) or "no hook"
    lines = [
        f"flow context    {owner.key}",
        f"key             slot {limit.index}, the classid of the filter at {places}",
        f"policy          {_policy(owner)}",
        f"state           {_state(limit)}",
    ]
    now_q = gcra.word_of(limit.now_ns)
    if config.bits_per_s:
        lines += _byte_meter(config, limit.meters.bytes_tat, now_q)
    if config.packets_per_s:
        lines += _packet_meter(config, limit.meters.packets_tat, now_q)
    if config.per_peer:
        lines += _peers(limit, config.per_peer, now_q)
    if limit.guard:
        lines += ["", *_guard(limit.guard)]
    return "\n".join([*lines, "", _transitions(limit.stats, config)])


def _policy(owner: Owner) -> str:
    if not isinstance(owner.key.subject, PodId):
        return "none; attached by 'tokenbucket attach'"
    return f"{owner.key.subject.namespace}/{owner.policy}, generation {owner.generation}"


def _state(limit: LimitSnapshot) -> str:
    if not limit.places:
        return why_not_attached(limit)
    return "observing" if limit.slot.config.observe else "metering"


def _guard(guard: GuardSnapshot) -> list[str]:
    """Return the place, the bursts and the drops of a guard."""
    config, stats = guard.slot.config, guard.stats
    places = ", ".join(f"{place.interface} {place.hook}" for place in guard.places) or "no hook"
    bursts = [units.format_bytes(config.burst_bytes)] if config.bits_per_s else []
    bursts += [f"{config.burst_packets} packets"] if config.packets_per_s else []
    return [
        "guard",
        f"  key                slot {guard.index}, at {places}",
        f"  global registers   burst {' and '.join(bursts)}",
        f"  dropped            {stats.dropped_packets} packets that bypassed the limit in the pod",
    ]


def _peers(limit: LimitSnapshot, config: PeerConfig, now_q: int) -> list[str]:
    """Return the rates, the number of peers, and the peers with the fewest tokens."""
    rates = []
    if config.bits_per_s:
        rate, burst = units.format_bit_rate(config.bits_per_s), units.format_bytes(config.burst_bytes)
        rates.append(f"rate {rate}, burst {burst}")
    if config.packets_per_s:
        rate = units.format_packet_rate(config.packets_per_s)
        rates.append(f"rate {rate}, burst {config.burst_packets} packets")
    tokens = {peer: fullness(peer, config, now_q) for peer in limit.peers}
    known, end = len(tokens), "destination" if config.is_destination else "source"
    lines = [
        "",
        f"peers, by {end} /{config.ipv4_prefix_length} and /{config.ipv6_prefix_length}",
        f"  global registers   {', '.join(rates)}",
        f"  flow registers     {known} {'peer' if known == 1 else 'peers'}",
        f"  exceeded           {limit.stats.peer_too_fast_packets} packets exceeded the bucket of their peer",
        f"  shared             {limit.stats.shared_peer_packets} packets used the bucket of unknown peers",
    ]
    emptiest = sorted(tokens, key=lambda peer: (tokens[peer], str(peer)))[:_PEERS_SHOWN]
    return lines + [f"  {peer!s:<18} tokens {tokens[peer]:.0%} of its burst" for peer in emptiest]


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
    color = "red (exceeds)" if case is gcra.Case.TOO_FAST else "green (conforms)"
    left_q = gcra.tokens_q(tat, now_q, burst_q)
    return [
        "",
        f"{name} meter",
        f"  global registers   {limits}",
        f"  flow register      tat = {tat} quanta, now {_ahead(tat, now_q)}; tokens {tokens}",
        f"  color              {color}, for {packet} now",
        f"  condition 1        tat <= now - cost        {left_q >= min(cost_q, burst_q)}   (not too fast)",
        f"  condition 2        tat >= now - burst       {case is not gcra.Case.IDLE}   (not idle)",
    ]


def _ahead(tat: int, now_q: int) -> str:
    if gcra.is_ahead(tat, now_q):
        return f"{((tat - now_q) % 2**64) / gcra.QUANTA_PER_NS / 1e6:.3f} ms before it"
    past_ms = (now_q - tat) % 2**64 / gcra.QUANTA_PER_NS / 1e6
    return f"{past_ms:.3f} ms after it" if past_ms < _LONG_MS else "long after it"


def _transitions(stats: Stats, config: SlotConfig) -> str:
    rejected = "drop" if config.dscp is None else f"mark {config.dscp}"
    rejected = "forward (observed)" if config.observe else rejected
    waits = "forward (observed: would be delayed)" if config.observe else "forward later"
    rows = [
        (gcra.Case.IN_WINDOW, "forward", "tat += cost", str(stats.in_window_packets)),
        (gcra.Case.IDLE, "forward", "tat = now - burst + cost", str(stats.idle_packets)),
        (gcra.Case.TOO_FAST, waits, "tat += cost", str(stats.delayed_packets)),
        (gcra.Case.TOO_FAST, rejected, "none", str(stats.exceed_packets)),
        (gcra.Case.TOO_FAST, "forward in the reserve", "tat += cost", str(stats.reserve_packets)),
    ]
    if not (config.max_delay_q or stats.delayed_packets):
        del rows[2]
    return table(("CASE", "VERDICT", "UPDATE", "PACKETS"), rows)
