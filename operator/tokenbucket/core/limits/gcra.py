"""Compute the configuration of a meter, and interpret its state, as ``operator/bpf/gcra.h`` does.

A meter's word, ``tat``, is a theoretical arrival time in quanta of 1/256 ns, counted modulo 2^64 (ITU-T
I.371, virtual scheduling). The program in the kernel decides about packets. This module serves the agent and
the commands.
"""

from __future__ import annotations

import enum

QUANTA_PER_NS = 256
QUANTA_PER_S = QUANTA_PER_NS * 10**9
AHEAD_MAX_Q = 1 << 55
"""A word up to this far after the clock is in the future (a debt). Every other word is in the past."""
BYTES_SHIFT = 14
PACKETS_SHIFT = 8
_WORD = 1 << 64


class Case(enum.StrEnum):
    """The position of a packet relative to the sliding window."""

    IN_WINDOW = "in the window"
    IDLE = "idle"
    TOO_FAST = "too fast"


def word_of(now_ns: int) -> int:
    """Return a time of the monotonic clock as a word, in quanta."""
    return now_ns * QUANTA_PER_NS % _WORD


def never_used(now_ns: int) -> int:
    """Return a word that reads as a full bucket for any burst, for the longest possible time (1.14 years)."""
    return (word_of(now_ns) + _WORD // 2) % _WORD


def bytes_scale(bits_per_s: int) -> int:
    """Return the quanta per byte as a fixed-point number, or 0 for no rate."""
    return _rounded(8 * QUANTA_PER_S << BYTES_SHIFT, bits_per_s) if bits_per_s else 0


def packets_scale(packets_per_s: int) -> int:
    """Return the quanta per packet as a fixed-point number, or 0 for no rate."""
    return _rounded(QUANTA_PER_S << PACKETS_SHIFT, packets_per_s) if packets_per_s else 0


def bytes_cost_q(size_bytes: int, bits_per_s: int) -> int:
    """Return the cost of a packet of this size, in quanta."""
    return _rounded(size_bytes * bytes_scale(bits_per_s), 1 << BYTES_SHIFT)


def packets_cost_q(packets: int, packets_per_s: int) -> int:
    """Return the cost of this number of segments, in quanta."""
    return _rounded(packets * packets_scale(packets_per_s), 1 << PACKETS_SHIFT)


def bytes_time_q(size_bytes: int, bits_per_s: int) -> int:
    """Return the time of bytes at a rate, in quanta, rounded to the nearest."""
    return _rounded(size_bytes * 8 * QUANTA_PER_S, bits_per_s)


def packets_time_q(packets: int, packets_per_s: int) -> int:
    """Return the sum of the rounded costs of single packets, in quanta. A burst of this time admits exactly
    this number of packets at any rate.
    """
    return packets * packets_cost_q(1, packets_per_s)


def bytes_in(time_q: int, bits_per_s: int) -> int:
    """Return the bytes that a rate admits in a time in quanta: the inverse of :func:`bytes_time_q`."""
    return _rounded(time_q * bits_per_s, 8 * QUANTA_PER_S)


def packets_in(time_q: int, packets_per_s: int) -> int:
    """Return the packets that a rate admits in a time in quanta: the inverse of :func:`packets_time_q`."""
    return _rounded(time_q, packets_cost_q(1, packets_per_s))


def _rounded(numerator: int, denominator: int) -> int:
    return (numerator + denominator // 2) // denominator


def is_ahead(tat: int, now_q: int) -> bool:
    """Return whether a word is in the future of the clock: the meter is in debt."""
    return 0 < (tat - now_q) % _WORD <= AHEAD_MAX_Q


def tokens_q(tat: int, now_q: int, burst_q: int) -> int:
    """Return the tokens in the bucket as a time in quanta, negative if the meter is in debt."""
    if is_ahead(tat, now_q):
        return -((tat - now_q) % _WORD)
    return min((now_q - tat) % _WORD, burst_q)


def charged(tat: int, before: int, after: int, now_q: int, burst_q: int) -> int:
    """Return a word, charged with the packets that another meter of the same limit admitted.

    The other meter went from the word ``before`` to ``after``, in quanta.
    """
    taken_q = (_within(after, now_q, burst_q) - _within(before, now_q, burst_q)) % _WORD
    if not 0 < taken_q <= AHEAD_MAX_Q:  # no charge, or the other meter was filled
        return tat
    return (_within(tat, now_q, burst_q) + taken_q) % _WORD


def at_new_rate(tat: int, slowed_tat: int, now_q: int, scales: tuple[int, int], most_q: int) -> int:
    """Return the word of a meter after its rate has changed.

    ``scales`` are the scales before and after; 0 is no rate. The word changes only if the rate rises, or if
    the meter had no rate. A debt keeps its time up to ``most_q``, the largest debt of the new limit. The
    charges since ``slowed_tat``, the word at the last decrease of the rate, keep at least their bytes or
    packets. Otherwise changes back and forth would reduce debts.
    """
    scale, new_scale = scales
    owed_q = -tokens_q(tat, now_q, 0)
    if not owed_q or 0 < scale <= new_scale:
        return tat
    before_q = min(-tokens_q(slowed_tat, now_q, 0), owed_q)
    same_q = before_q + (_rounded((owed_q - before_q) * new_scale, scale) if scale else 0)
    return (now_q + min(owed_q, max(most_q, same_q))) % _WORD


def _within(tat: int, now_q: int, burst_q: int) -> int:
    """Return the later of the word and the word of a full bucket."""
    return (now_q - tokens_q(tat, now_q, burst_q)) % _WORD


def case_of(tat: int, now_q: int, cost_q: int, burst_q: int) -> Case:
    """Return the case of a packet of this cost at this time."""
    if tokens_q(tat, now_q, burst_q) < min(cost_q, burst_q):
        return Case.TOO_FAST
    return Case.IDLE if (now_q - tat) % _WORD > burst_q else Case.IN_WINDOW
