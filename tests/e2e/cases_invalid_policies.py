"""Policies that the API server rejects with certain messages, and policies that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
NAMESPACE = "schema"


@dataclass(frozen=True, slots=True)
class Case:
    """An invalid policy."""

    name: str
    field: str
    """Path of the field that is wrong."""
    words: tuple[str, ...]
    """What the API server's message contains besides the path: what is wrong, and the fix."""
    document: Document

    def __str__(self) -> str:
        return self.name


def policy(name: str, **spec: Any) -> Document:
    """Return a policy with 100 Mbit/s of ingress, changed by ``spec``. ``...`` removes a field."""
    given = {"podSelector": {}, "ingress": {"rate": {"bits": "100M"}}, **spec}
    return {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {key: value for key, value in given.items() if value is not ...},
    }


def _wrong(name: str, field: str, *words: str, **spec: Any) -> Case:
    return Case(name, f"spec.{field}".rstrip("."), words, policy(name, **spec))


def _limit(name: str, field: str, *words: str, **limit: Any) -> Case:
    """Return a policy with the ingress limit ``limit``."""
    return _wrong(name, f"ingress.{field}".rstrip("."), *words, ingress=limit)


def _bits(name: str, value: object, *words: str) -> Case:
    return _limit(name, "rate.bits", *words, rate={"bits": value})


def _bytes(name: str, value: object, *words: str) -> Case:
    return _limit(name, "burst.bytes", *words, rate={"bits": "1G"}, burst={"bytes": value})


def _per_peer(name: str, field: str, *words: str, **per_peer: Any) -> Case:
    return _limit(name, f"perPeer.{field}", *words, rate={"bits": "1G"}, perPeer=per_peer)


def _labels(name: str, field: str, *words: str, **selector: Any) -> Case:
    return _wrong(name, f"podSelector.{field}", *words, podSelector=selector)


def _requirement(name: str, field: str, *words: str, **requirement: Any) -> Case:
    return _labels(name, f"matchExpressions[0].{field}", *words, matchExpressions=[requirement])


_RATE = {"bits": "100M"}
_IN = {"key": "app", "operator": "In"}

INVALID = (
    # The unit is the field's, and decimal: what is written by habit is refused with what is meant.
    _bits("binary-mega", "100Mi", "did you mean 100M?"),
    _bits("binary-kilo", "100Ki", "did you mean 100k?"),
    _bits("milli", "100m", "m is milli", "did you mean 100M?"),
    _bits("micro", "100u", "u is micro", "did you mean 100M?"),
    _bits("mbps", "100Mbps", "did you mean 100M?"),
    _bits("mbit", "100mbit", "did you mean 100M?"),
    _bits("mbit-per-second", "100Mbit/s", "did you mean 100M?"),
    _bits("binary-and-unit", "1.5Gib/s", "did you mean 1.5G?"),
    _bits("kbit", "100kbit", "did you mean 100k?"),
    _bits("capital-k", "100K", "did you mean 100k?"),
    _bits("unit-alone", "8000bps", "did you mean 8000?"),
    _bits("unknown-suffix", "12parsecs", "suffixes are k, M, G, T"),
    _bits("space", "100 M", "is not a quantity", "such as 100M"),
    _bits("word", "fast", "is not a quantity", "such as 100M"),
    _bits("empty-quantity", "", "is not a quantity", "such as 100M"),
    _bits("no-exponent", "1e", "unknown suffix"),
    _bits("other-digits", "\u0663M", "is not a quantity"),
    _bits("line-end", "100M\n", "is not a quantity"),
    _bits("too-slow", "7999", "must be from 8k to 1T"),
    _bits("too-fast", "1.1T", "must be from 8k to 1T"),
    _bits("negative", "-1M", "must be from 8k to 1T"),
    _bits("zero", 0, "must be from 8k to 1T"),
    _bits("huge", "1e999", "must be from 8k to 1T"),
    _bits("zero-huge", "0e999", "must be from 8k to 1T"),
    _bits("half-a-bit", "8000.5", "must be a whole number"),
    _bits("too-long", "9" * 41, "may not be more than 40"),
    _bits("rate-truth", True, "must be of type integer,string"),
    _bits("rate-list", ["100M"], "must be of type integer,string"),
    _bits("rate-fraction", 8000.5, "must be of type integer,string"),
    _limit("packets-binary", "rate.packets", "did you mean 10k?", rate={"packets": "10Ki"}),
    _limit("packets-milli", "rate.packets", "did you mean 500M?", rate={"packets": "500m"}),
    _limit("packets-fraction", "rate.packets", "must be a whole number", rate={"packets": "1.5"}),
    _limit("packets-many", "rate.packets", "must be from 1 to 1G packets", rate={"packets": "2G"}),
    _limit("packets-unit", "rate.packets", "did you mean 10k?", rate={"packets": "10kpps"}),
    # The depth of the bucket.
    _bytes("burst-small", "63", "must be from 64 to 4Gi bytes"),
    _bytes("burst-large", "5Gi", "must be from 64 to 4Gi bytes"),
    _bytes("burst-unit", "64kb", "did you mean 64k?"),
    _bytes("burst-binary-unit", "64KiB", "did you mean 64Ki?"),
    _bytes("burst-lower-case", "1mi", "did you mean 1Mi?"),
    _bytes("burst-milli", "512m", "did you mean 512M?"),
    _bytes("burst-fraction", "1.1Ki", "must be a whole number"),
    _limit(
        "burst-packets-large",
        "burst.packets",
        "must be from 1 to 16777216 packets",
        rate={"packets": "1M"},
        burst={"packets": "17M"},
    ),
    _limit(
        "burst-packets-binary",
        "burst.packets",
        "did you mean 1k?",
        rate={"packets": "1M"},
        burst={"packets": "1Ki"},
    ),
    _limit(
        "burst-without-rate",
        "burst.bytes",
        "needs rate.bits; add it",
        rate={"packets": 5},
        burst={"bytes": "64k"},
    ),
    _limit("packets-without-rate", "burst.packets", "needs rate.packets", rate=_RATE, burst={"packets": 5}),
    _limit(
        "burst-of-days",
        "burst.bytes",
        "more than a day",
        "raise the rate",
        rate={"bits": "8k"},
        burst={"bytes": 86_400_001},
    ),
    _limit(
        "packets-of-days", "burst.packets", "more than a day", rate={"packets": 1}, burst={"packets": 86_401}
    ),
    # What is missing, and what is not known.
    _wrong("no-direction", "", "limits nothing; set ingress, egress or both", ingress=...),
    _wrong("no-selector", "podSelector", "Required value", podSelector=...),
    Case(
        "no-spec",
        "spec",
        ("Required value",),
        {key: value for key, value in policy("no-spec").items() if key != "spec"},
    ),
    _limit("empty-limit", "rate", "set bits, packets or both, such as {bits: 100M}"),
    _limit("empty-rate", "rate", "set bits, packets or both, such as {bits: 100M}", rate={}),
    _limit("rate-text", "rate", "must be of type object", rate="100M"),
    _limit("unknown-field", "bandwidth", "unknown field", rate=_RATE, bandwidth="100M"),
    _limit("wrong-case", "Rate", "unknown field", rate=_RATE, Rate=_RATE),
    _wrong("other-selector", "selector", "unknown field", selector={}),
    _wrong("egress-too", "egress.rate.bits", "did you mean 5M?", egress={"rate": {"bits": "5Mi"}}),
    # Each remote prefix.
    _per_peer("peer-empty", "rate", "set bits, packets or both, such as {bits: 10M}"),
    _per_peer("peer-empty-rate", "rate", "set bits, packets or both", rate={}),
    _per_peer("peer-slow", "rate.bits", "must be from 8k to 1T", rate={"bits": 1}),
    _per_peer("peer-binary", "rate.bits", "did you mean 1M?", rate={"bits": "1Mi"}),
    _per_peer(
        "peer-burst", "burst.bytes", "needs rate.bits; add it", rate={"packets": 5}, burst={"bytes": "64k"}
    ),
    _per_peer(
        "peer-burst-of-days", "burst.bytes", "more than a day", rate={"bits": "8k"}, burst={"bytes": "1Gi"}
    ),
    _per_peer("peer-ipv4", "ipv4PrefixLength", "less than or equal to 32", rate=_RATE, ipv4PrefixLength=33),
    _per_peer("peer-ipv6", "ipv6PrefixLength", "greater than or equal to 1", rate=_RATE, ipv6PrefixLength=0),
    _per_peer("peer-action", "exceedAction", "unknown field", rate=_RATE, exceedAction="Drop"),
    # What happens to packets that exceed.
    _limit(
        "action-case",
        "exceedAction",
        'supported values: "Delay", "Drop", "Mark"',
        rate=_RATE,
        exceedAction="drop",
    ),
    _limit("delay-without-unit", "maxDelay", "is not a duration", "such as 25ms", rate=_RATE, maxDelay="25"),
    _limit("delay-number", "maxDelay", "must be of type string", rate=_RATE, maxDelay=25),
    _limit("delay-negative", "maxDelay", "is not a duration", rate=_RATE, maxDelay="-25ms"),
    _limit("delay-short", "maxDelay", "must be from 5ms to 1s", rate=_RATE, maxDelay="4.999ms"),
    _limit("delay-long", "maxDelay", "must be from 5ms to 1s", rate=_RATE, maxDelay="1001ms"),
    _limit("delay-endless", "maxDelay", "must be from 5ms to 1s", rate=_RATE, maxDelay="9999999999999h"),
    _limit(
        "delay-of-drop",
        "maxDelay",
        "no meaning with exceedAction Drop; remove it",
        rate=_RATE,
        exceedAction="Drop",
        maxDelay="25ms",
    ),
    _limit("mark-without-dscp", "dscp", "Mark needs it, from 0 to 63", rate=_RATE, exceedAction="Mark"),
    _limit("dscp-of-delay", "dscp", "remove it, or use Mark", rate=_RATE, dscp=0),
    _limit("dscp-of-drop", "dscp", "exceedAction Drop", rate=_RATE, exceedAction="Drop", dscp=10),
    _limit("dscp-large", "dscp", "less than or equal to 63", rate=_RATE, exceedAction="Mark", dscp=64),
    _limit("dscp-name", "dscp", "must be of type integer", rate=_RATE, exceedAction="Mark", dscp="AF11"),
    # The policy itself.
    _wrong("priority-large", "priority", "less than or equal to 1000", priority=1001),
    _wrong("priority-negative", "priority", "greater than or equal to 0", priority=-1),
    _wrong("priority-text", "priority", "must be of type integer", priority="5"),
    _wrong("mode-case", "mode", 'supported values: "Enforce", "Observe", "Off"', mode="off"),
    # What YAML makes of a bare Off.
    _wrong("mode-unquoted", "mode", 'supported values: "Enforce", "Observe", "Off"', mode=False),
    # Which pods.
    _wrong("selector-text", "podSelector", "must be of type object", podSelector="app=web"),
    _labels("label-number", "matchLabels.app", "must be of type string", matchLabels={"app": 1}),
    _labels("labels-list", "matchLabels", "must be of type object", matchLabels=["app"]),
    _requirement("in-nothing", "values", "must contain at least one value with In", **_IN),
    _requirement(
        "not-in-nothing", "values", "at least one value with NotIn", key="app", operator="NotIn", values=[]
    ),
    _requirement(
        "exists-with-values",
        "values",
        "must be empty with Exists; remove it",
        key="app",
        operator="Exists",
        values=["web"],
    ),
    _requirement(
        "operator-unknown", "operator", '"In", "NotIn", "Exists", "DoesNotExist"', key="app", operator="Is"
    ),
    _requirement("operator-missing", "operator", "Required value", key="app"),
    _requirement("key-missing", "key", "Required value", operator="Exists"),
    _requirement("key-empty", "key", "such as app or example.com/app", key="", operator="Exists"),
    _requirement("values-text", "values", "must be of type array", **_IN, values="web"),
    # No label can be so.
    _labels("label-key", "matchLabels", "a b: must be the key of a label", matchLabels={"a b": "web"}),
    _labels("label-key-empty", "matchLabels", "must be the key of a label", matchLabels={"": "web"}),
    _labels(
        "label-key-long", "matchLabels", "x: must be the key", "at most 63", matchLabels={"x" * 64: "web"}
    ),
    _labels("label-prefix", "matchLabels", "A.b/app: must be the key", matchLabels={"A.b/app": "web"}),
    _labels("label-value", "matchLabels", "[app]: ", "the value of a label", matchLabels={"app": "a b"}),
    _labels("label-value-long", "matchLabels.app", "more than 63", matchLabels={"app": "x" * 64}),
    _labels(
        "label-value-missing", "matchLabels", "app: has no value; set a value", matchLabels={"app": None}
    ),
    _labels("no-label", "matchLabels", "is empty, which selects all pods; set a label", matchLabels={}),
    _requirement("requirement-key", "key", "must be the key of a label", key="a b", operator="Exists"),
    _requirement("requirement-value", "values[0]", "must be the value of a label", **_IN, values=["a b"]),
    # Too many.
    _labels(
        "many-labels", "matchLabels", "at most 16", matchLabels={f"key-{number}": "x" for number in range(17)}
    ),
    _labels(
        "many-requirements",
        "matchExpressions",
        "at most 16",
        matchExpressions=[{"key": "app", "operator": "Exists"}] * 17,
    ),
    _requirement(
        "many-values", "values", "at most 64", **_IN, values=[f"value-{number}" for number in range(65)]
    ),
)

VALID = (
    policy("plain"),
    policy("number", ingress={"rate": {"bits": 100_000_000}}),
    policy("slowest", ingress={"rate": {"bits": "8k"}}),
    policy("fastest", ingress={"rate": {"bits": "1T", "packets": "1G"}}),
    policy("exponent", ingress={"rate": {"bits": "1e6"}}),
    policy("fraction", ingress={"rate": {"bits": "1.5M"}}),
    policy("whole-fraction", ingress={"rate": {"bits": "10000.0"}}),
    policy("bare-fraction", ingress={"rate": {"bits": "+.5M"}}),
    policy("egress-only", ingress=..., egress={"rate": {"packets": 1}}),
    policy("both", egress={"rate": {"bits": "1G"}}),
    policy("binary-burst", ingress={"rate": _RATE, "burst": {"bytes": "512Ki"}}),
    policy("half-binary-burst", ingress={"rate": _RATE, "burst": {"bytes": "0.5Mi"}}),
    policy("smallest-burst", ingress={"rate": _RATE, "burst": {"bytes": 64}}),
    policy("largest-burst", ingress={"rate": _RATE, "burst": {"bytes": "4Gi"}}),
    policy("empty-burst", ingress={"rate": _RATE, "burst": {}}),
    policy("burst-of-a-day", ingress={"rate": {"bits": "8k"}, "burst": {"bytes": 86_400_000}}),
    policy("packets-of-a-day", ingress={"rate": {"packets": 1}, "burst": {"packets": 86_400}}),
    policy("peers", ingress={"rate": _RATE, "perPeer": {"rate": {"bits": "1M"}}}),
    policy("peers-only", ingress={"perPeer": {"rate": {"packets": 100}}}),
    policy("peers-and-empty-rate", ingress={"rate": {}, "perPeer": {"rate": {"packets": 100}}}),
    policy(
        "prefixes",
        ingress={
            "perPeer": {
                "rate": _RATE,
                "burst": {"bytes": "64Ki"},
                "ipv4PrefixLength": 1,
                "ipv6PrefixLength": 128,
            }
        },
    ),
    policy("drop", ingress={"rate": _RATE, "exceedAction": "Drop"}),
    policy("mark", ingress={"rate": _RATE, "exceedAction": "Mark", "dscp": 0}),
    policy("mark-highest", ingress={"rate": _RATE, "exceedAction": "Mark", "dscp": 63}),
    policy("delay-shortest", ingress={"rate": _RATE, "maxDelay": "5ms"}),
    policy("delay-longest", ingress={"rate": _RATE, "maxDelay": "1s"}),
    policy("delay-in-parts", ingress={"rate": _RATE, "maxDelay": "0h500ms.25s5000us5000µs"}),
    policy("observe", mode="Observe", priority=1000),
    policy("off", mode="Off", priority=0),
    policy("nothing-given", priority=None, mode=None, egress=None),
    policy("labels", podSelector={"matchLabels": {"app": "web", "example.com/tier": "", "A_b.c-1": "V.1_x"}}),
    policy(
        "requirements",
        podSelector={
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", ""]},
                {"key": "tier", "operator": "NotIn", "values": ["back"]},
                {"key": "example.com/owner", "operator": "Exists"},
                {"key": "legacy", "operator": "DoesNotExist", "values": []},
            ],
        },
    ),
)
