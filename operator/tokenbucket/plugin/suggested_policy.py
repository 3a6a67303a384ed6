"""A suggested policy as a manifest, and the reasoning in words."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenbucket import units
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Direction, ExceedAction
from tokenbucket.core.limits.suggestion import MAX_DELAY_NS, ROOM_BYTES, Excess, Suggestion

_PLAIN = re.compile("[a-z0-9]+=[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
"""A key without a dash, and a value: another label has another name."""
_WORDS = 40
"""Maximum length of the words in a name that ends with a digest."""
Suggestions = Mapping[Direction, Suggestion]


def policy_of(
    namespace: str, name: str, selector: Mapping[str, Any], suggestions: Suggestions
) -> dict[str, Any]:
    """Return the manifest. Raises SpecError if it is not valid."""
    document = {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "podSelector": dict(selector),
            "mode": "Enforce",
            **{direction.value: _limit(suggestion) for direction, suggestion in suggestions.items()},
        },
    }
    parse_policy(document)
    return document


def name_of(selector: Mapping[str, Any], direction: Direction | None = None) -> str:
    """Return the name of a policy, such as "suggested-app-web". Different selectors have different names."""
    labels = selector.get("matchLabels", {})
    pairs = [f"{key}={value}" for key, value in sorted(labels.items())]
    words = re.sub("[^a-z0-9]+", "-", "-".join(pairs or ["pods"]).lower())[:_WORDS].strip("-")
    if set(selector) != {"matchLabels"} or len(labels) != 1 or not _PLAIN.fullmatch(pairs[0]):
        digest = hashlib.sha256(json.dumps(_sorted(selector), sort_keys=True).encode()).hexdigest()
        words = f"{words}-{digest[:8]}"
    return "-".join(["suggested", words, *([direction.value] if direction else [])])


def _sorted(selector: Mapping[str, Any]) -> dict[str, Any]:
    """Return a selector whose order has no meaning in a fixed order."""
    expressions = [
        {**each, "values": sorted(each.get("values", ()))} for each in selector.get("matchExpressions", ())
    ]
    return {**selector, "matchExpressions": sorted(expressions, key=json.dumps)}


def _limit(suggestion: Suggestion) -> dict[str, Any]:
    limit: dict[str, Any] = {
        "rate": {"bits": _rate(suggestion.bits_per_s)},
        "burst": {"bytes": f"{suggestion.burst_bytes // 1024}Ki"},
        "exceedAction": suggestion.action.value,
    }
    if suggestion.action is ExceedAction.DELAY:
        limit["maxDelay"] = units.format_duration(MAX_DELAY_NS)
    return limit


def _rate(bits_per_s: int) -> str:
    """Return a rate with three significant digits as a quantity."""
    for suffix, unit in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if bits_per_s >= unit:
            return f"{bits_per_s / unit:.9g}{suffix}"
    return str(bits_per_s)


def reasoning(direction: Direction, found: Suggestion) -> Iterator[str]:
    """Yield the lines that explain the limit of a direction."""
    name, report = found.busiest
    observed, active = (units.format_duration(s * 10**9) for s in (report.observed_s, report.active_s))
    rates = ", ".join(
        f"{part} {_bit_rate(rate)}"
        for part, rate in (("median", report.median), ("90 %", report.p90), ("99 %", report.p99))
    )
    burst = f"{found.burst_s:.2g} s of the rate, and {units.format_bytes(ROOM_BYTES)} for one GSO packet"
    worst, excess = found.worst
    yield f"{direction.value}, {_pods(found.pods)}; the busiest is {name}"
    since = f" since {report.since}" if report.since else ""
    yield f"  observed:   {observed}{since}, of these {active} with traffic"
    yield f"  over 1 s:   {rates}, highest {_bit_rate(report.highest)}"
    yield f"  over 0.1 s: highest {_bit_rate(report.peak)}"
    yield "  rate:       the 99th percentile of the busiest pod, over its seconds with traffic"
    yield f"  burst:      {burst}"
    yield f"  expected:   {expected(found.action, found.excess)}"
    if found.pods > 1:
        yield f"  worst pod:  {worst}: {expected(found.action, excess)}"


def expected(action: ExceedAction, excess: Excess) -> str:
    """Return the expected excess in words."""
    dropped = f"at most {_share(excess.rejected)} of the bytes dropped"
    if action is ExceedAction.DELAY:
        return f"at most {_share(excess.waiting)} of the bytes delayed, {dropped}"
    return dropped


def _pods(count: int) -> str:
    return f"{count} {'pod' if count == 1 else 'pods'}"


def _bit_rate(bytes_per_s: int) -> str:
    return units.format_bit_rate(8 * bytes_per_s)


def _share(share: float) -> str:
    """Return a share in percent, rounded up."""
    return f"{math.ceil(share * 10_000) / 100:g} %"


def as_document(found: Suggestion) -> dict[str, Any]:
    """Return a suggestion as a document."""
    (busiest, report), (worst, excess) = found.busiest, found.worst
    return {
        "pods": found.pods,
        "busiest": {"pod": busiest, **report.as_document()},
        "bitsPerSecond": found.bits_per_s,
        "burstBytes": found.burst_bytes,
        "expected": _shares(found.excess),
        "worst": {"pod": worst, **_shares(excess)},
    }


def _shares(excess: Excess) -> dict[str, float]:
    return {"rejectedShare": excess.rejected, "delayedShare": excess.waiting}
