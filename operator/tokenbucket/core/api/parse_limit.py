"""Parse the limit of one direction, and check its bounds. docs/reference/policy.md describes the fields."""

from __future__ import annotations

from fractions import Fraction

from tokenbucket import units
from tokenbucket.core.api.field_reader import FieldReader
from tokenbucket.core.api.policy import Burst, ExceedAction, Limit, PerPeer, Queue, Rate

RATE_BITS = (8_000, 10**12)
RATE_PACKETS = (1, 10**9)
BURST_BYTES = (64, 4 * 2**30)
BURST_PACKETS = (1, 2**24)
BURST_TIME_S = 86_400
MAX_DELAY_NS = (5_000_000, 1_000_000_000)
_BOUND_TEXT = {
    RATE_BITS: "8k to 1T",
    RATE_PACKETS: "1 to 1G",
    BURST_BYTES: "64 to 4Gi",
    BURST_PACKETS: "1 to 16777216",
}
_BINARY_SUFFIX = "i"
_SMALL_WORDS = {"m": "milli", "u": "micro", "n": "nano"}


def parse_limit(spec: FieldReader, name: str) -> Limit:
    """Parse a field of ``spec`` as a limit."""
    given = spec.object(name, {"rate", "burst", "perPeer", "exceedAction", "maxDelay", "queue", "dscp"})
    rate, burst, per_peer = _rate(given), _burst(given), _per_peer(given)
    is_limited = _is_set(rate) or (per_peer and _is_set(per_peer.rate))
    if not is_limited and not given.has_error("rate", "perPeer"):
        given.error("rate", None, "is missing; set bits, packets or both, such as {bits: 100M}")
    _check_burst(given, rate, burst)
    action = given.choice("exceedAction", ExceedAction, ExceedAction.DELAY)
    queue = _queue(given, action, per_peer)
    return Limit(rate, burst, per_peer, action, _max_delay(given, action), queue, _dscp(given, action))


def _is_set(rate: Rate) -> bool:
    return rate.bits_per_s is not None or rate.packets_per_s is not None


def _rate(given: FieldReader) -> Rate:
    rate = given.object("rate", {"bits", "packets"})
    return Rate(_amount(rate, "bits", RATE_BITS), _amount(rate, "packets", RATE_PACKETS))


def _burst(given: FieldReader) -> Burst:
    burst = given.object("burst", {"bytes", "packets"})
    return Burst(_amount(burst, "bytes", BURST_BYTES), _amount(burst, "packets", BURST_PACKETS))


def _amount(given: FieldReader, name: str, bounds: tuple[int, int]) -> int | None:
    """Return a whole amount between two bounds. Only bytes may have a binary suffix such as Mi."""
    value = given.get(name)
    if value is None:
        return None
    try:
        number = units.quantity(value)
    except ValueError as error:
        given.error(name, value, str(error))
        return None
    suffix, prefix = units.suffix_of(value), str(value)[:-1]
    low, high = bounds
    if suffix in _SMALL_WORDS:
        hint = f"is a fraction ({suffix} is {_SMALL_WORDS[suffix]}); did you mean {prefix}M?"
        given.error(name, value, hint)
    elif name != "bytes" and suffix.endswith(_BINARY_SUFFIX):
        given.error(name, value, f"must be decimal; did you mean {prefix.replace('K', 'k')}?")
    elif number.denominator != 1:
        given.error(name, value, "must be a whole number")
    elif not low <= number <= high:
        given.error(name, value, f"must be from {_BOUND_TEXT[bounds]}")
    else:
        return int(number)
    return None


def _check_burst(given: FieldReader, rate: Rate, burst: Burst) -> None:
    pairs = (
        ("bytes", burst.size_bytes, "bits", Fraction(rate.bits_per_s, 8) if rate.bits_per_s else None),
        ("packets", burst.packets, "packets", Fraction(rate.packets_per_s) if rate.packets_per_s else None),
    )
    for name, size, rate_name, per_s in pairs:
        if size is None:
            continue
        if per_s is None:
            if not given.has_error(f"rate.{rate_name}"):
                given.error(f"burst.{name}", size, f"needs rate.{rate_name}")
        elif size > per_s * BURST_TIME_S:
            message = "takes more than a day to fill at the rate; lower it or raise the rate"
            given.error(f"burst.{name}", size, message)


def _per_peer(limit: FieldReader) -> PerPeer | None:
    if limit.get("perPeer") is None:
        return None
    given = limit.object("perPeer", {"rate", "burst", "ipv4PrefixLength", "ipv6PrefixLength"})
    rate, burst = _rate(given), _burst(given)
    if not _is_set(rate) and not given.has_error("rate"):
        given.error("rate", None, "is missing; set bits, packets or both")
    _check_burst(given, rate, burst)
    ipv4, ipv6 = given.integer("ipv4PrefixLength", 1, 32), given.integer("ipv6PrefixLength", 1, 128)
    return PerPeer(rate, burst, ipv4 or 32, ipv6 or 64)


def _max_delay(given: FieldReader, action: ExceedAction) -> int | None:
    value = given.get("maxDelay")
    if value is None:
        return None
    try:
        time_ns = units.duration_ns(value)
    except ValueError as error:
        given.error("maxDelay", value, str(error))
        return None
    if action is not ExceedAction.DELAY:
        given.error("maxDelay", value, f"has no meaning with exceedAction {action}; remove it")
    elif not MAX_DELAY_NS[0] <= time_ns <= MAX_DELAY_NS[1]:
        given.error("maxDelay", value, "must be from 5ms to 1s")
    return time_ns


def _queue(given: FieldReader, action: ExceedAction, per_peer: PerPeer | None) -> Queue | None:
    value = given.get("queue")
    if value is None:
        return None
    queue = given.choice("queue", Queue, Queue.FIFO)
    if action is not ExceedAction.DELAY:
        given.error("queue", value, f"has no meaning with exceedAction {action}; remove it")
    elif queue is Queue.FAIR and per_peer:
        given.error("queue", value, "cannot be Fair with perPeer; remove one of them")
    return queue


def _dscp(given: FieldReader, action: ExceedAction) -> int | None:
    value = given.get("dscp")
    if value is not None and action is not ExceedAction.MARK:
        given.error("dscp", value, f"has no meaning with exceedAction {action}; remove it, or use Mark")
    if value is None and action is ExceedAction.MARK:
        given.error("dscp", None, "is missing; Mark needs it, from 0 to 63")
    return given.integer("dscp", 0, 63)
