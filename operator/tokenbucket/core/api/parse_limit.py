"""Parse the limit of one direction, and check its bounds. docs/reference/policy.md describes the fields."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tokenbucket import units
from tokenbucket.core.api.policy import Burst, ExceedAction, Limit, PerPeer, Rate
from tokenbucket.core.api.validation import Validator

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


def parse_limit(fields: Validator, value: object, path: str) -> Limit:
    """Parse a limit. Record problems in ``fields``."""
    known = {"rate", "burst", "perPeer", "exceedAction", "maxDelay", "dscp"}
    given = fields.mapping(value, path, known)
    rate, burst = _rate(fields, given, path), _burst(fields, given, path)
    per_peer = _per_peer(fields, given.get("perPeer"), f"{path}.perPeer")
    if (
        not _is_set(rate)
        and not (per_peer and _is_set(per_peer.rate))
        and not fields.is_wrong(f"{path}.rate", f"{path}.perPeer")
    ):
        fields.wrong(f"{path}.rate", None, "is missing; give bits, packets or both, such as {bits: 100M}")
    _check_burst(fields, rate, burst, path)
    choices = [action.value for action in ExceedAction]
    action = fields.choice(
        given.get("exceedAction"), f"{path}.exceedAction", ExceedAction, choices, ExceedAction.DELAY
    )
    return Limit(
        rate=rate,
        burst=burst,
        per_peer=per_peer,
        exceed_action=action,
        max_delay_ns=_max_delay(fields, given.get("maxDelay"), f"{path}.maxDelay", action),
        dscp=_dscp(fields, given.get("dscp"), f"{path}.dscp", action),
    )


def _is_set(rate: Rate) -> bool:
    return rate.bits_per_s is not None or rate.packets_per_s is not None


def _rate(fields: Validator, given: Mapping[str, Any], path: str) -> Rate:
    rate = fields.mapping(given.get("rate"), f"{path}.rate", {"bits", "packets"})
    return Rate(
        _amount(fields, rate.get("bits"), f"{path}.rate.bits", RATE_BITS, decimal=True),
        _amount(fields, rate.get("packets"), f"{path}.rate.packets", RATE_PACKETS, decimal=True),
    )


def _burst(fields: Validator, given: Mapping[str, Any], path: str) -> Burst:
    burst = fields.mapping(given.get("burst"), f"{path}.burst", {"bytes", "packets"})
    return Burst(
        _amount(fields, burst.get("bytes"), f"{path}.burst.bytes", BURST_BYTES, decimal=False),
        _amount(fields, burst.get("packets"), f"{path}.burst.packets", BURST_PACKETS, decimal=True),
    )


def _amount(
    fields: Validator, value: object, path: str, bounds: tuple[int, int], *, decimal: bool
) -> int | None:
    """Return a whole amount between two bounds. ``decimal`` rejects binary suffixes such as Mi."""
    if value is None:
        return None
    try:
        number = units.quantity(value)
    except ValueError as error:
        fields.wrong(path, value, str(error))
        return None
    suffix = units.suffix_of(value)
    low, high = bounds
    if suffix in {"m", "u", "n"}:
        fields.wrong(
            path, value, f"is a fraction ({suffix} is {_SMALL_WORDS[suffix]}); did you mean {_mega(value)}?"
        )
    elif decimal and suffix.endswith(_BINARY_SUFFIX):
        fields.wrong(path, value, f"must be decimal; did you mean {str(value)[:-1].replace('K', 'k')}?")
    elif number.denominator != 1:
        fields.wrong(path, value, "must be a whole number")
    elif not low <= number <= high:
        fields.wrong(path, value, f"must be from {_BOUND_TEXT[bounds]}")
    else:
        return int(number)
    return None


_SMALL_WORDS = {"m": "milli", "u": "micro", "n": "nano"}


def _mega(value: object) -> str:
    return f"{str(value)[:-1]}M"


def _check_burst(fields: Validator, rate: Rate, burst: Burst, path: str) -> None:
    pairs = (
        ("bytes", burst.size_bytes, "bits", Fraction(rate.bits_per_s, 8) if rate.bits_per_s else None),
        ("packets", burst.packets, "packets", Fraction(rate.packets_per_s) if rate.packets_per_s else None),
    )
    for name, size, rate_name, per_s in pairs:
        where = f"{path}.burst.{name}"
        if size is None:
            continue
        if per_s is None:
            if not fields.is_wrong(f"{path}.rate.{rate_name}"):
                fields.wrong(where, size, f"needs rate.{rate_name}")
        elif size > per_s * BURST_TIME_S:
            fields.wrong(where, size, "takes more than a day to fill at the rate; lower it or raise the rate")


def _per_peer(fields: Validator, value: object, path: str) -> PerPeer | None:
    if value is None:
        return None
    given = fields.mapping(value, path, {"rate", "burst", "ipv4PrefixLength", "ipv6PrefixLength"})
    rate, burst = _rate(fields, given, path), _burst(fields, given, path)
    if not _is_set(rate) and not fields.is_wrong(f"{path}.rate", f"{path}.perPeer"):
        fields.wrong(f"{path}.rate", None, "is missing; give bits, packets or both")
    _check_burst(fields, rate, burst, path)
    ipv4 = fields.integer(given.get("ipv4PrefixLength"), f"{path}.ipv4PrefixLength", 1, 32)
    ipv6 = fields.integer(given.get("ipv6PrefixLength"), f"{path}.ipv6PrefixLength", 1, 128)
    return PerPeer(rate, burst, ipv4 or 32, ipv6 or 64)


def _max_delay(fields: Validator, value: object, path: str, action: ExceedAction) -> int | None:
    if value is None:
        return None
    try:
        time_ns = units.duration_ns(value)
    except ValueError as error:
        fields.wrong(path, value, str(error))
        return None
    if action is not ExceedAction.DELAY:
        fields.wrong(path, value, f"has no meaning with exceedAction {action}; remove it")
    elif not MAX_DELAY_NS[0] <= time_ns <= MAX_DELAY_NS[1]:
        fields.wrong(path, value, "must be from 5ms to 1s")
    return time_ns


def _dscp(fields: Validator, value: object, path: str, action: ExceedAction) -> int | None:
    if value is not None and action is not ExceedAction.MARK:
        fields.wrong(path, value, f"has no meaning with exceedAction {action}; remove it, or use Mark")
    if value is None and action is ExceedAction.MARK:
        fields.wrong(path, None, "is missing; Mark needs it, from 0 to 63")
    return fields.integer(value, path, 0, 63)
