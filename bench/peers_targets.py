"""What this project should reach beside its peers, judged by what ``bench/peers.py`` measured.

A target is printed where every limiter that it speaks of was measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from figures import Figure, must_be, print_table

Found = dict[str, dict[str, dict[str, list[float]]]]
"""Numbers by what was measured, limiter and cell, in the order of the rounds."""

PAIRS = (("Delay", "CNI plugin, 50 ms"), ("sends: Delay", "sends: CNI plugin, 50 ms"))
"""What waits in a queue of ours, and the TBF with the same burst."""
ECN = "Delay, ECN"
EXACT = ("Delay", ECN, "Drop")
LEAST_PERCENT, MOST_PERCENT = 95.0, 100.0
UDP_ERROR_PERCENT = 0.5
LEAST_TIMES = (
    ("beside 1 bulk flow", "p50, ms", 50.0),
    ("beside 1 bulk flow", "p99, ms", 20.0),
    ("beside 1 bulk flow", "p99.9, ms", 5.0),
    ("beside 64 bulk flows", "p99, ms", 8.0),
)
"""How many times as long a request takes behind the TBF."""


def report(found: Found) -> bool:
    """Print the targets. Returns whether all are met."""
    judged = [print_table(f"Targets: {title}", figures) for title, figures in _tables(found) if figures]
    if judged:
        print("\nevery target is met" if all(judged) else "\na target was missed")
    return all(judged)


def _tables(found: Found) -> Iterable[tuple[str, list[Figure]]]:
    for ours, theirs in PAIRS:
        yield f"goodput of {ours!r}, percent of the rate", _goodput(found, ours)
        yield f"retransmissions of {ours!r}, beside {theirs!r}", _retransmissions(found, ours, theirs)
        yield f"requests with {theirs!r}, in times of {ours!r}", _requests(found, ours, theirs)
    yield f"goodput of {ECN!r}, percent of the rate", _goodput(found, ECN)
    lost = _of(found, "retransmissions", ECN)
    yield f"retransmissions of {ECN!r}", [must_be(cell, lost[cell], 0, "") for cell in lost]
    yield "a flood, packets above rate x time + burst + one packet", _first_moments(found)
    yield "UDP in the steady state, away from the rate on the wire", _udp(found)


def _goodput(found: Found, limiter: str) -> list[Figure]:
    cells = _of(found, "goodput, % of the rate", limiter)
    return [_within(cell, numbers, LEAST_PERCENT, MOST_PERCENT) for cell, numbers in cells.items()]


def _retransmissions(found: Found, ours: str, theirs: str) -> list[Figure]:
    """Compare the median with the maximum of the peer, because a few losses in some seconds are chance."""
    figures = []
    peers = _of(found, "retransmissions", theirs)
    for cell, numbers in _of(found, "retransmissions", ours).items():
        if cell in peers:
            most = max(peers[cell])
            target = f"<= {most:g}, the most of the TBF's"
            figures.append(Figure(cell, numbers, "", target, statistics.median(numbers) <= most))
    return figures


def _requests(found: Found, ours: str, theirs: str) -> list[Figure]:
    """In each round how many times as long theirs took; the median must reach the target."""
    figures = []
    for cell, what, least in LEAST_TIMES:
        pairs = zip(
            _of(found, what, ours).get(cell, ()), _of(found, what, theirs).get(cell, ()), strict=False
        )
        times = [their_ms / our_ms for our_ms, their_ms in pairs]
        if times:
            met = statistics.median(times) >= least
            figures.append(Figure(f"{cell}, {what.removesuffix(', ms')}", times, "x", f">= {least:g}", met))
    return figures


def _first_moments(found: Found) -> list[Figure]:
    return [
        Figure(f"{limiter}: {name}", numbers, "", "<= 0", max(numbers) <= 0)
        for limiter in EXACT
        for name in ("first 100 ms", "first second")
        for numbers in _of(found, f"{name}, packets too many", limiter).values()
    ]


def _udp(found: Found) -> list[Figure]:
    return [
        _within(
            f"{limiter}: {cell}",
            [number - 100 for number in numbers],
            -UDP_ERROR_PERCENT,
            UDP_ERROR_PERCENT,
        )
        for limiter in EXACT
        for cell, numbers in _of(found, "UDP, % of the rate", limiter).items()
    ]


def _within(name: str, numbers: list[float], least: float, most: float) -> Figure:
    met = least <= statistics.median(numbers) <= most
    return Figure(name, numbers, "%", f"{least:g} to {most:g}", met)


def _of(found: Found, what: str, limiter: str) -> dict[str, list[float]]:
    return found.get(what, {}).get(limiter, {})
