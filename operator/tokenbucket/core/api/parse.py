"""Parse documents into policies and pods. Raise only SpecError, for any document.

The parser repeats the checks of the API server's schema. A policy that was stored before a change of the
schema therefore gets its own error, without an effect on other policies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tokenbucket.core.api.parse_limit import parse_limit
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Limit, Mode, Policy
from tokenbucket.core.api.selector import Operator, Requirement, Selector
from tokenbucket.core.api.validation import Validator, subject_of

API_VERSION = "tokenbucket.dev/v1alpha1"
POLICY, REPORT, POD = "TokenBucketPolicy", "TokenBucketNode", "Pod"
READINESS_GATE = "tokenbucket.dev/RateLimited"
_ENDED = {"Succeeded", "Failed"}
_NAMESPACE_LENGTH = 63
_UID_BYTES = 47
_LABELS, _VALUES = 16, 64
_NO_LABEL = "is empty, which selects all pods; give a label with its value, or remove matchLabels"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_KEY = re.compile(
    rf"({_DNS_LABEL}(\.{_DNS_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?", re.ASCII
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_PREFIX_LENGTH = 253
_SET_OPERATORS = {Operator.IN, Operator.NOT_IN}


def parse_policy(document: object) -> Policy:
    """Parse a TokenBucketPolicy. Raises SpecError with all problems."""
    fields = Validator()
    top = fields.mapping(document, "", {"apiVersion", "kind", "metadata", "spec", "status"})
    if top.get("apiVersion") != API_VERSION:
        fields.wrong("apiVersion", top.get("apiVersion"), f"must be {API_VERSION}")
    if top.get("kind") != POLICY:
        fields.wrong("kind", top.get("kind"), f"must be {POLICY}")
    metadata = fields.mapping(top.get("metadata"), "metadata")
    spec = fields.mapping(top.get("spec"), "spec", {"podSelector", "priority", "mode", "ingress", "egress"})
    policy = Policy(
        namespace=_namespace(fields, metadata),
        name=fields.name(metadata.get("name"), "metadata.name"),
        selector=_selector(fields, spec.get("podSelector")),
        limits=_limits(fields, spec),
        priority=fields.integer(spec.get("priority"), "spec.priority", 0, 1000) or 0,
        mode=fields.choice(spec.get("mode"), "spec.mode", Mode, [mode.value for mode in Mode], Mode.ENFORCE),
        uid=fields.text(metadata.get("uid"), "metadata.uid", longest=_UID_BYTES),
        generation=fields.integer(metadata.get("generation"), "metadata.generation", 0, 2**63 - 1) or 0,
        created=fields.text(metadata.get("creationTimestamp"), "metadata.creationTimestamp", longest=40),
    )
    fields.finish(subject_of(POLICY, document))
    return policy


def _namespace(fields: Validator, metadata: Mapping[str, Any]) -> str:
    namespace = metadata.get("namespace", "default")
    return fields.name(namespace, "metadata.namespace", _NAMESPACE_LENGTH)


def _limits(fields: Validator, spec: Mapping[str, Any]) -> dict[Direction, Limit]:
    given = {
        direction: spec[direction.value] for direction in Direction if spec.get(direction.value) is not None
    }
    if not given and not any(problem.field == "spec" for problem in fields.problems):
        fields.wrong("spec", None, "limits nothing; give ingress, egress or both")
    return {
        direction: parse_limit(fields, value, f"spec.{direction.value}") for direction, value in given.items()
    }


def _selector(fields: Validator, value: object) -> Selector:
    path = "spec.podSelector"
    if value is None:
        fields.wrong(path, None, "is missing; {} selects all pods of the namespace")
        return Selector()
    given = fields.mapping(value, path, {"matchLabels", "matchExpressions"})
    labels = fields.mapping(given.get("matchLabels"), f"{path}.matchLabels")
    items = fields.sequence(given.get("matchExpressions"), f"{path}.matchExpressions")
    for name, number in (("matchLabels", len(labels)), ("matchExpressions", len(items))):
        if number > _LABELS:
            fields.wrong(f"{path}.{name}", number, f"must have at most {_LABELS} items")
    if not labels and given.get("matchLabels") is not None:
        fields.wrong(f"{path}.matchLabels", None, _NO_LABEL)
    requirements = []
    for key, item in labels.items():
        where = f"{path}.matchLabels.{key[:64]}"
        _check_key(fields, key, where)
        requirements.append(Requirement(key, Operator.IN, frozenset({_label_value(fields, item, where)})))
    for number, item in enumerate(items):
        requirements += _requirement(fields, item, f"{path}.matchExpressions[{number}]")
    return Selector(frozenset(requirements))


def _requirement(fields: Validator, value: object, path: str) -> list[Requirement]:
    given = fields.mapping(value, path, {"key", "operator", "values"})
    key = fields.text(given.get("key"), f"{path}.key", longest=317)
    _check_key(fields, key, f"{path}.key")
    choices = [operator.value for operator in Operator]
    if given.get("operator") is None:
        fields.wrong(f"{path}.operator", None, f"is missing; set one of {', '.join(choices)}")
    operator = fields.choice(given.get("operator"), f"{path}.operator", Operator, choices, Operator.EXISTS)
    items = fields.sequence(given.get("values"), f"{path}.values")
    if len(items) > _VALUES:
        fields.wrong(f"{path}.values", len(items), f"must have at most {_VALUES} items")
    texts = [_label_value(fields, item, f"{path}.values[{place}]") for place, item in enumerate(items)]
    if operator in _SET_OPERATORS and not items:
        fields.wrong(f"{path}.values", given.get("values"), f"must hold at least one value with {operator}")
    if operator not in _SET_OPERATORS and items:
        fields.wrong(f"{path}.values", given.get("values"), f"must be empty with {operator}")
    return [Requirement(key, operator, frozenset(texts))]


def _check_key(fields: Validator, key: str, path: str) -> None:
    if not _LABEL_KEY.fullmatch(key) or len(key.partition("/")[0]) > _PREFIX_LENGTH:
        fields.wrong(path, key, "must be the key of a label, such as app or example.com/app")


def _label_value(fields: Validator, value: object, path: str) -> str:
    """Return a label value. Reject a missing value ("app:"), because ignoring it would select more pods."""
    if value is None:
        fields.wrong(path, None, "has no value; give one, or an empty text")
    text = fields.text(value, path, longest=63)
    if not _LABEL_VALUE.fullmatch(text):
        fields.wrong(path, value, "must be the value of a label: letters, digits, '-', '_' and '.'")
    return text


def _labels(fields: Validator, value: object, path: str) -> dict[str, str]:
    given = fields.mapping(value, path)
    return {key: fields.text(text, f"{path}.{key[:64]}") for key, text in given.items()}


def parse_pod(document: object) -> Pod:
    """Parse the fields of a Pod that limits need. Raises SpecError with all problems."""
    fields = Validator()
    top = fields.mapping(document, "")
    if top.get("kind") != POD:
        fields.wrong("kind", top.get("kind"), f"must be {POD}")
    metadata = fields.mapping(top.get("metadata"), "metadata")
    spec, status = fields.mapping(top.get("spec"), "spec"), fields.mapping(top.get("status"), "status")
    ended = status.get("phase") in _ENDED if isinstance(status.get("phase"), str) else False
    addresses = _addresses(fields, status)
    pod = Pod(
        id=PodId(
            _namespace(fields, metadata),
            fields.name(metadata.get("name"), "metadata.name"),
            fields.text(metadata.get("uid"), "metadata.uid", longest=_UID_BYTES),
        ),
        labels=_labels(fields, metadata.get("labels"), "metadata.labels"),
        addresses=frozenset() if ended else addresses,
        host_network=spec.get("hostNetwork") is True,
        ended=ended,
        waits=_names_gate(spec.get("readinessGates")),
        has_overhead=bool(spec.get("overhead")),
    )
    fields.finish(subject_of(POD, document))
    return pod


def _names_gate(gates: object) -> bool:
    given = gates if isinstance(gates, list) else []
    return any(isinstance(gate, Mapping) and gate.get("conditionType") == READINESS_GATE for gate in given)


def _addresses(fields: Validator, status: Mapping[str, Any]) -> frozenset[IPv4Address | IPv6Address]:
    given = [("status.podIP", status.get("podIP"))]
    for number, item in enumerate(fields.sequence(status.get("podIPs"), "status.podIPs")):
        path = f"status.podIPs[{number}]"
        given.append((f"{path}.ip", fields.mapping(item, path).get("ip")))
    found = set()
    for path, value in given:
        address = _address(value)
        if address:
            found.add(address)
        elif value is not None and value != "":
            fields.wrong(path, value, "is not an IP address")
    return frozenset(found)


def _address(value: object) -> IPv4Address | IPv6Address | None:
    try:
        # ip_address() also accepts numbers. A zone is valid only on its own host.
        return ip_address(value) if isinstance(value, str) and "%" not in value else None
    except ValueError:
        return None
