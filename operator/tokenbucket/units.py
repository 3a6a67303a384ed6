"""Parses and formats quantities, durations and times.

Quantities have the syntax of Kubernetes (``100M``, ``512Ki``, ``1e6``), durations that of Go (``25ms``,
``1m30s``). Results are exact fractions. Every error is a ValueError whose message names the fix.

>>> quantity("1.5M")
Fraction(1500000, 1)
>>> duration_ns("1m30s")
90000000000
>>> format_bit_rate(100_000_000), format_bytes(524_288), format_bytes(625_000), format_duration(25_000_000)
('100Mbit/s', '512KiB', '625kB', '25ms')
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from fractions import Fraction

MAX_TEXT = 40
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_SMALL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 10**3)}
_SUFFIXES: dict[str, Fraction | int] = {**_DECIMAL, **_BINARY, **_SMALL}
_NUMBER = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,3})|([A-Za-z/]*))\Z", re.ASCII)
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NOT_A_QUANTITY = "is not a quantity; write a number with a suffix, such as 100M"
_NOT_A_DURATION = "is not a duration; write a number with a unit (us, ms, s, m, h), such as 25ms"
_MISSPELT = {
    "K": "k",
    "m": "M",
    "g": "G",
    "t": "T",
    "ki": "Ki",
    "KI": "Ki",
    "mi": "Mi",
    "MI": "Mi",
    "gi": "Gi",
}
_BIT_RATE_UNITS = re.compile(r"(bps|bit/s|bits/s|bit|bits|b/s|B/s|pps|/s|b|B)\Z")


def quantity(value: object) -> Fraction:
    """Return the exact value of a Kubernetes quantity. Raises ValueError."""
    match = _NUMBER.match(_bounded(value))
    if not match:
        raise ValueError(_NOT_A_QUANTITY)
    sign, digits, exponent, suffix = match.groups()
    number = Fraction(digits) * (10 ** int(exponent) if exponent and int(exponent) >= 0 else 1)
    if exponent and int(exponent) < 0:
        number /= 10 ** -int(exponent)
    if suffix and suffix not in _SUFFIXES:
        raise ValueError(f"has an unknown suffix {suffix!r}; {_suffix_hint(digits, suffix)}")
    number *= _SUFFIXES[suffix or ""]
    return -number if sign == "-" else number


def _bounded(value: object) -> str:
    """Return a quantity as text of bounded length: ``1e999999999`` would take all memory."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(_NOT_A_QUANTITY)  # noqa: TRY004 - callers expect one kind of error
    too_long = abs(value) >= 10**MAX_TEXT if isinstance(value, int) else len(value) > MAX_TEXT
    if too_long:
        raise ValueError(f"has more than {MAX_TEXT} characters")
    return str(value)


def _suffix_hint(digits: str, suffix: str) -> str:
    bare = _BIT_RATE_UNITS.sub("", suffix)
    bare = _MISSPELT.get(bare, bare)
    if bare in {**_DECIMAL, **_BINARY}:
        return f"did you mean {digits}{bare}?"
    return "suffixes are k, M, G, T and Ki, Mi, Gi, Ti"


def suffix_of(value: object) -> str:
    """Return the suffix of a valid quantity, such as ``Mi``; empty for a bare number."""
    match = _NUMBER.match(value) if isinstance(value, str) else None
    return (match[4] or "") if match else ""


def duration_ns(value: object) -> int:
    """Return a duration in nanoseconds. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(_NOT_A_DURATION)  # noqa: TRY004 - callers expect one kind of error
    if len(value) > MAX_TEXT:
        raise ValueError(f"has more than {MAX_TEXT} characters")
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(_NOT_A_DURATION)
    return int(sum(Fraction(number) * _NS[unit] for number, unit in parts))


def format_bit_rate(bits_per_s: int) -> str:
    """Format a rate in bits per second."""
    return _scaled(bits_per_s, ("", "k", "M", "G", "T"), 1000) + "bit/s"


def format_packet_rate(packets_per_s: int) -> str:
    """Format a rate in packets per second."""
    return _scaled(packets_per_s, ("", "k", "M", "G"), 1000) + "pkt/s"


def format_bytes(size_bytes: int) -> str:
    """Format a size, in a binary unit if the size is a multiple of the unit, otherwise in a decimal unit."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return _scaled(size_bytes, ("", "k", "M", "G", "T", "P"), 1000) + "B"


def format_duration(time_ns: int) -> str:
    """Format a duration in the largest fitting unit."""
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if time_ns >= factor:
            return f"{_short(Fraction(time_ns, factor))}{unit}"
    return f"{time_ns}ns"


def _scaled(number: int, units: tuple[str, ...], step: int) -> str:
    value, place = Fraction(number), 0
    while abs(value) >= step and place < len(units) - 1:
        value /= step
        place += 1
    return _short(value) + units[place]


def _short(value: Fraction) -> str:
    """Format with four significant digits, without trailing zeros."""
    digits = max(0, 3 - (len(str(abs(int(value)))) - 1)) if value else 0
    text = f"{float(value):.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@functools.lru_cache(maxsize=4096)  # thousands of reports have times of the same seconds
def unix_time(text: str) -> float:
    """Return the Unix time in seconds of an RFC 3339 text, or 0 if the text is invalid."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def rfc3339(unix_s: float) -> str:
    """Format a Unix time in seconds as RFC 3339 in UTC, without the fraction of a second."""
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
