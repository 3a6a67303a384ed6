"""The rows of ``kubectl tokenbucket top``: one for each limited pod and direction, with its history."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tokenbucket.core.planning.reasons import Effect
from tokenbucket.plugin.rates import Rates, rates_between, rates_of_minute

Document = Mapping[str, Any]
HISTORY = 32
_LIMITED_SHARE = 0.9
ENFORCED = "ok"


@dataclass(frozen=True, slots=True)
class Row:
    """One limit, or a declared limit that has no slot."""

    namespace: str
    pod: str
    node: str
    direction: str
    policy: str
    state: str
    """``ok``, ``Observe``, ``Off``, or the reasons for which the limit is not enforced as declared."""
    effect: str = ""
    """The worst effect of the reasons. Empty without a reason."""
    action: str = ""
    limit: str = ""
    attachment: str = ""
    rates: Rates | None = None
    history: tuple[float, ...] = ()
    """The recent shares of the limit or, without a share, rates relative to the highest one."""

    @property
    def is_limited(self) -> bool:
        """Return whether the limit has an effect on the traffic, or the state is not as declared."""
        rates = self.rates
        if self.state != ENFORCED and self.effect not in {Effect.EXEMPT, ""}:
            return True
        if not rates:
            return False
        has_excess = rates.delayed or rates.dropped or rates.marked or rates.exceeding
        return bool(has_excess) or (rates.share or 0) >= _LIMITED_SHARE

    def to_document(self) -> dict[str, Any]:
        """Return the row for programs."""
        rates = self.rates
        document: dict[str, Any] = {
            "namespace": self.namespace,
            "pod": self.pod,
            "node": self.node,
            "direction": self.direction,
            "policy": self.policy,
            "state": self.state,
            "action": self.action,
            "limit": self.limit,
            "attachment": self.attachment,
        }
        if not rates:
            return document | {"perSecond": None}
        figures = asdict(rates)
        if shares := figures.pop("dry_run"):
            document["dryRunShares"] = _rounded(shares)
        return document | {"perSecond": _rounded(figures)}


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    names = {"wait_s": "waitSeconds"}
    return {
        names.get(name, name): None if value is None else round(value, 6) for name, value in figures.items()
    }


class Sort(enum.StrEnum):
    """Values of ``--sort``."""

    USED = "used"
    RATE = "rate"
    WAIT = "wait"
    DELAYED = "delayed"
    DROPPED = "dropped"
    MARKED = "marked"
    NAME = "name"


_FIGURES: Mapping[Sort, Callable[[Rates], float]] = {
    Sort.USED: lambda rates: -1.0 if rates.share is None else rates.share,
    Sort.RATE: lambda rates: rates.bits,
    Sort.WAIT: lambda rates: rates.wait_s,
    Sort.DELAYED: lambda rates: rates.delayed,
    Sort.DROPPED: lambda rates: rates.dropped + rates.exceeding,
    Sort.MARKED: lambda rates: rates.marked,
}


def ordered(rows: Iterable[Row], by: Sort) -> list[Row]:
    """Return the rows, the highest figure first. Rows without rates are last, ties are in order of names."""

    def key(row: Row) -> tuple[float, str, str, str]:
        figure = _FIGURES.get(by)
        value = -figure(row.rates) if figure and row.rates else float("inf") if figure else 0.0
        return value, row.namespace, row.pod, row.direction

    return sorted(rows, key=key)


@dataclass(slots=True)
class History:
    """The readings of all limits."""

    _before: dict[tuple[str, str], Document] = field(default_factory=dict)
    _recent: dict[tuple[str, str], deque[float]] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Return whether there was a reading."""
        return bool(self._before)

    def rows(self, pods: Iterable[Document]) -> list[Row]:
        """Return the rows of the documents of pods, and remember the counters."""
        return [row for pod in pods for row in self._rows_of(pod)]

    def forget_others(self, uids: Iterable[str]) -> None:
        """Forget pods that no longer exist."""
        kept = set(uids)
        self._before = {key: value for key, value in self._before.items() if key[0] in kept}
        self._recent = {key: value for key, value in self._recent.items() if key[0] in kept}

    def _rows_of(self, pod: Document) -> Iterator[Row]:
        limits = {limit["direction"]: limit for limit in _documents(pod, "limits") if "direction" in limit}
        policies = pod.get("policies") or {}
        for direction in sorted({*limits, *policies}):
            reasons = [each for each in _documents(pod, "reasons") if each.get("direction") == direction]
            limit = limits.get(direction, {})
            key = str(pod["uid"]), direction
            rates = (rates_between(self._before.get(key), limit) or rates_of_minute(limit)) if limit else None
            if limit:
                self._before[key] = limit
            yield Row(
                str(pod.get("namespace", "")),
                str(pod.get("pod", "")),
                str(pod.get("node", "")),
                direction,
                str(limit.get("policy") or policies.get(direction, "")),
                _state(pod, limit, reasons),
                _worst(reasons),
                str(limit.get("action") or limit.get("exceedAction") or ""),
                str(limit.get("effective", "")),
                ",".join(sorted({str(hook.get("attachment")) for hook in _documents(limit, "hooks")})),
                rates,
                self._remember(key, rates),
            )

    def _remember(self, key: tuple[str, str], rates: Rates | None) -> tuple[float, ...]:
        recent = self._recent.setdefault(key, deque(maxlen=HISTORY))
        if rates:
            recent.append(rates.bits if rates.share is None else rates.share)
        if not rates or rates.share is not None:
            return tuple(recent)
        highest = max(recent) or 1.0
        return tuple(each / highest for each in recent)


def _state(pod: Document, limit: Document, reasons: list[Document]) -> str:
    if pod.get("enforcement") == "Off":
        return "Off"
    if reasons:
        return ",".join(sorted({str(each.get("reason")) for each in reasons}))
    if not limit:
        return "not enforced yet"
    if limit.get("mode") == "Observe":
        return "Observe"
    return ENFORCED if limit.get("active") else "not attached"


def _worst(reasons: list[Document]) -> str:
    order = (Effect.FAILED, Effect.PENDING, Effect.DEGRADED, Effect.EXEMPT)
    found = {each.get("effect") for each in reasons}
    return next((effect.value for effect in order if effect.value in found), "")


def _documents(document: Document, name: str) -> list[Document]:
    found = document.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
