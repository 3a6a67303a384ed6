"""What a control plane and a fleet did between two moments, as figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import Figure
from server_metrics import Metrics

PARTS = ("kube-apiserver", "etcd", "controller", "agents")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Moment:
    """What everything has taken up to now."""

    at_s: float
    metrics: Metrics
    processor_s: dict[str, float]
    own: Counter[tuple[str, str]]
    """Requests of the benchmark itself, by verb and resource."""


@dataclass
class Window:
    """What happened between two moments."""

    seconds: float
    metrics: Metrics
    processor_s: dict[str, float]
    own: Counter[tuple[str, str]]

    def requests(self) -> dict[tuple[str, str], float]:
        """By verb and resource, those of the benchmark left out. Watches count when they end."""
        made = self.metrics.by("apiserver_request_total", ("verb", "resource"))
        left = {(verb, what): count - self.own[verb, what] for (verb, what), count in made.items()}
        return {key: count for key, count in left.items() if count > 0 and (is_ours(key[1]) or not key[1])}

    def writes(self, resource: str) -> int:
        """Return the number of objects and statuses of a kind that were applied."""
        return int(self.requests().get(("APPLY", resource), 0))

    def events(self) -> dict[str, float]:
        """Sent to watches, by resource."""
        sent = self.metrics.by("apiserver_watch_events_total", ("resource",))
        return {resource: count for (resource,), count in sent.items() if is_ours(resource)}

    def event_bytes(self) -> float:
        return sum(
            self.metrics.sum("apiserver_watch_events_sizes_sum", resource=each) for each in self.events()
        )

    def response_bytes(self) -> float:
        """Of answers, but not to watches. Those to the benchmark itself are among them."""
        sizes = self.metrics.by("apiserver_response_sizes_sum", ("verb", "resource"))
        return sum(size for (verb, what), size in sizes.items() if verb != "WATCH" and is_ours(what))


def is_ours(resource: str) -> bool:
    return resource in {"tokenbucketpolicies", "tokenbucketnodes", "pods", "nodes", "configmaps"}


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_mib(pid: int) -> float:
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has used so far."""
    return _status(pid, "VmHWM")


def own_mib(pid: int) -> float:
    """Return the memory that a process does not share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size.split()[0]) for name, size in (line.split(":", 1) for line in lines)}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1024


def request_figures(windows: Sequence[Window], per: float, what: str) -> list[Figure]:
    """Return requests by verb and resource."""
    kinds = sorted({kind for window in windows for kind in window.requests()})
    return [
        Figure(
            f"{verb} {resource or 'of the API itself'}, {what}",
            [each.requests().get((verb, resource), 0) / per for each in windows],
            "",
        )
        for verb, resource in kinds
    ]


def bytes_figures(windows: Sequence[Window], per: float, what: str) -> list[Figure]:
    return [
        Figure(
            f"events sent to watches, {what}", [sum(each.events().values()) / per for each in windows], ""
        ),
        Figure(
            "  of these", [sum(each.event_bytes() for each in windows) / 1024 / per / len(windows)], "KiB"
        ),
        Figure(
            f"answers to requests, {what}", [each.response_bytes() / 1024 / per for each in windows], "KiB"
        ),
    ]


def processor_figures(windows: Sequence[Window], nodes: int) -> list[Figure]:
    """Return the CPU time of each part."""
    return [
        Figure(
            "processor, an agent" if nodes > 1 else "processor, agents",
            [1000 * each.processor_s["agents"] / nodes for each in windows],
            "ms",
        ),
        *(
            Figure(f"processor, {part}", [1000 * each.processor_s[part] for each in windows], "ms")
            for part in PARTS[:3]
        ),
    ]
