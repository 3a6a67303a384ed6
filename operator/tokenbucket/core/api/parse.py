"""Parse documents into policies and pods. Raise only SpecError, for any document.

The parser repeats the checks of the API server's schema. A policy that was stored before a change of the
schema therefore gets its own error, without an effect on other policies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from tokenbucket.core.api.annotations import read_annotations
from tokenbucket.core.api.field_reader import FieldReader, subject_of
from tokenbucket.core.api.parse_limit import parse_limit
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import DISABLED, Direction, Limit, Mode, Policy
from tokenbucket.core.api.selector import Operator, Requirement, Selector

API_VERSION = "tokenbucket.dev/v1alpha1"
POLICY, REPORT, POD = "TokenBucketPolicy", "TokenBucketNode", "Pod"
READINESS_GATE = "tokenbucket.dev/RateLimited"
_STATIC_UID = "kubernetes.io/config.hash"
_NAMESPACE_LENGTH = 63
_UID_BYTES = 47
_LABELS, _VALUES = 16, 64
_NO_LABEL = "is empty, which selects all pods; set a label with its value, or remove matchLabels"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_KEY = re.compile(
    rf"({_DNS_LABEL}(\.{_DNS_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?", re.ASCII
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_PREFIX_LENGTH = 253
_SET_OPERATORS = {Operator.IN, Operator.NOT_IN}


def parse_policy(document: object) -> Policy:
    """Parse a TokenBucketPolicy. Raises SpecError with all problems."""
    top = FieldReader.of(document, {"apiVersion", "kind", "metadata", "spec", "status"})
    for name, expected in (("apiVersion", API_VERSION), ("kind", POLICY)):
        if top.get(name) != expected:
            top.error(name, top.get(name), f"must be {expected}")
    metadata = top.object("metadata")
    spec = top.object("spec", {"podSelector", "priority", "mode", "ingress", "egress"})
    policy = Policy(
        namespace=metadata.name("namespace", _NAMESPACE_LENGTH, default="default"),
        name=metadata.name("name"),
        selector=_selector(spec),
        limits=_limits(spec),
        priority=spec.integer("priority", 0, 1000) or 0,
        mode=Mode.OFF if spec.get("mode") == DISABLED else spec.choice("mode", Mode, Mode.ENFORCE),
        uid=metadata.text("uid", _UID_BYTES),
        generation=metadata.integer("generation", 0, 2**63 - 1) or 0,
        created=metadata.text("creationTimestamp", 40),
    )
    top.finish(subject_of(POLICY, document))
    return policy


def _limits(spec: FieldReader) -> dict[Direction, Limit]:
    given = [direction for direction in Direction if spec.get(direction.value) is not None]
    if not given and not any(problem.field == "spec" for problem in spec.problems):
        spec.error("", None, "limits nothing; set ingress, egress or both")
    return {direction: parse_limit(spec, direction.value) for direction in given}


def _selector(spec: FieldReader) -> Selector:
    if spec.get("podSelector") is None:
        spec.error("podSelector", None, "is missing; {} selects all pods of the namespace")
        return Selector()
    given = spec.object("podSelector", {"matchLabels", "matchExpressions"})
    labels, expressions = given.object("matchLabels"), given.sequence("matchExpressions")
    for name, found in (("matchLabels", labels), ("matchExpressions", expressions)):
        if len(found.values) > _LABELS:
            given.error(name, len(found.values), f"must have at most {_LABELS} items")
    if not labels.values and given.get("matchLabels") is not None:
        given.error("matchLabels", None, _NO_LABEL)
    requirements = []
    for key in labels.values:
        _check_key(labels, key, key)
        requirements.append(Requirement(key, Operator.IN, frozenset({_label_value(labels, key)})))
    requirements += [_requirement(expressions, name) for name in expressions.values]
    return Selector(frozenset(requirements))


def _requirement(expressions: FieldReader, name: str) -> Requirement:
    given = expressions.object(name, {"key", "operator", "values"})
    key = given.text("key", 317)
    _check_key(given, "key", key)
    if given.get("operator") is None:
        given.error("operator", None, f"is missing; set one of {', '.join(Operator)}")
    operator = given.choice("operator", Operator, Operator.EXISTS)
    items = given.sequence("values")
    if len(items.values) > _VALUES:
        given.error("values", len(items.values), f"must have at most {_VALUES} items")
    texts = frozenset(_label_value(items, item) for item in items.values)
    if operator in _SET_OPERATORS and not texts:
        given.error("values", given.get("values"), f"must contain at least one value with {operator}")
    if operator not in _SET_OPERATORS and texts:
        given.error("values", given.get("values"), f"must be empty with {operator}")
    return Requirement(key, operator, texts)


def _check_key(fields: FieldReader, name: str, key: str) -> None:
    if not _LABEL_KEY.fullmatch(key) or len(key.partition("/")[0]) > _PREFIX_LENGTH:
        fields.error(name, key, "must be the key of a label, such as app or example.com/app")


def _label_value(fields: FieldReader, name: str) -> str:
    """Return a label value. Reject a missing value ("app:"), because ignoring it would select more pods."""
    value = fields.get(name)
    if value is None:
        fields.error(name, None, "has no value; set a value or an empty string")
    text = fields.text(name, 63)
    if not _LABEL_VALUE.fullmatch(text):
        fields.error(name, value, "must be the value of a label: letters, digits, '-', '_' and '.'")
    return text


def parse_pod(document: object, *, annotations: bool = False) -> Pod:
    """Parse the fields of a Pod that limits need. ``annotations`` is whether these declare limits.

    Raises SpecError with all problems.
    """
    top = FieldReader.of(document)
    if top.get("kind") != POD:
        top.error("kind", top.get("kind"), f"must be {POD}")
    metadata, spec, status = top.object("metadata"), top.object("spec"), top.object("status")
    labels = metadata.object("labels")
    ended = status.get("phase") in ("Succeeded", "Failed")
    addresses = _addresses(status)
    namespace = metadata.name("namespace", _NAMESPACE_LENGTH, default="default")
    pod = Pod(
        id=PodId(
            namespace,
            metadata.name("name"),
            metadata.text("uid", _UID_BYTES),
        ),
        labels={key: labels.text(key) for key in labels.values},
        addresses=frozenset() if ended else addresses,
        host_network=spec.get("hostNetwork") is True,
        ended=ended,
        waits=_names_gate(spec.get("readinessGates")),
        has_overhead=bool(spec.get("overhead")),
        static_uid=_static_uid(metadata.get("annotations")),
        annotated=read_annotations(namespace, metadata.get("annotations")) if annotations else None,
    )
    top.finish(subject_of(POD, document))
    return pod


def _static_uid(annotations: object) -> str:
    uid = annotations.get(_STATIC_UID) if isinstance(annotations, Mapping) else None
    return uid if isinstance(uid, str) else ""


def _names_gate(gates: object) -> bool:
    given = gates if isinstance(gates, list) else []
    return any(isinstance(gate, Mapping) and gate.get("conditionType") == READINESS_GATE for gate in given)


def _addresses(status: FieldReader) -> frozenset[IPv4Address | IPv6Address]:
    items = status.sequence("podIPs")
    found = set()
    for fields, name in [(status, "podIP"), *((items.object(item), "ip") for item in items.values)]:
        value = fields.get(name)
        address = _address(value)
        if address:
            found.add(address)
        elif value is not None and value != "":
            fields.error(name, value, "is not an IP address")
    return frozenset(found)


def _address(value: object) -> IPv4Address | IPv6Address | None:
    try:
        # ip_address() also accepts numbers. A zone is valid only on its own host.
        return ip_address(value) if isinstance(value, str) and "%" not in value else None
    except ValueError:
        return None
