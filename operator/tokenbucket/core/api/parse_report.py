"""Read the report of an agent from the status of a TokenBucketNode.

Agents and controllers of different versions read the same reports, so parsing never fails. It ignores unknown
fields, and uses the default for missing fields and for values of a wrong type.

Thousands of nodes report the same texts and numbers about a policy. Their entries share them in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

from tokenbucket.core.api.node_report import (
    MOST_PODS,
    POD_FIELDS,
    POD_STATES,
    AgentInfo,
    NodeReport,
    Override,
    PodCounts,
    PodReport,
    PolicyReport,
    ReasonCount,
    Sync,
    WatchContact,
)

T = TypeVar("T", int, str, bool)


def parse_report(document: object) -> NodeReport:
    """Read a TokenBucketNode of any version. Raises no exception."""
    status = _mapping(_mapping(document).get("status"))
    agent, attachments = _mapping(status.get("agent")), _mapping(status.get("attachments"))
    annotations = _mapping(status.get("annotations"))
    return NodeReport(
        agent=AgentInfo(
            _get(agent, "version", ""),
            _get(agent, "pod", ""),
            _get(agent, "release", ""),
            _names(agent.get("features")),
        ),
        sync=_sync(status),
        kernel=_get(status, "kernel", ""),
        fq=_get(status, "fq", False),
        enforcement=_get(status, "enforcement", ""),
        problem=_get(status, "problem", ""),
        clean=_get(status, "clean", False),
        limits=_number(status, "limits"),
        attachments={name: count for name, count in attachments.items() if type(count) is int},
        foreign_programs=_names(status.get("foreignPrograms")),
        policies=tuple(_policy(policy) for policy in _items(status, "policies")),
        policies_omitted=_number(status, "policiesOmitted"),
        annotations=_policy(annotations) if annotations else None,
        pods=tuple(
            PodReport(*(_get(pod, name, "") for name in POD_FIELDS)) for pod in _items(status, "pods")
        ),
        pods_omitted=_number(status, "podsOmitted"),
    )


def _sync(status: Mapping[str, Any]) -> Sync:
    watches = tuple(
        WatchContact(_get(item, "resource", ""), _get(item, "lastContact", ""))
        for item in _items(status, "watches")
    )
    last, period_s = _get(status, "lastSync", ""), _number(status, "syncPeriodSeconds")
    return Sync(last, period_s, _get(status, "policiesVersion", -1), watches)


def _names(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _policy(given: Mapping[str, Any]) -> PolicyReport:
    return PolicyReport(
        namespace=sys.intern(_get(given, "namespace", "")),
        name=sys.intern(_get(given, "name", "")),
        uid=sys.intern(_get(given, "uid", "")),
        generation=_number(given, "generation"),
        rejected=_get(given, "rejected", ""),
        pods=_shared_counts(*(_count(given, name) for name in POD_STATES)),
        overridden_by=tuple(
            Override(_get(item, "policy", ""), _get(item, "direction", ""), _count(item, "pods"))
            for item in _items(given, "overriddenBy")
        ),
        effective=_texts(given.get("effective")),
        action=_texts(given.get("action")),
        reasons=tuple(
            ReasonCount(_get(item, "reason", ""), _count(item, "pods"), _get(item, "message", ""))
            for item in _items(given, "reasons")
        ),
    )


def _get(given: Mapping[str, Any], name: str, default: T) -> T:
    value = given.get(name)
    return value if type(value) is type(default) else default


def _count(given: Mapping[str, Any], name: str) -> int:
    """Return a number of pods. Whatever a node reports, the sums must fit the status of a policy."""
    return min(_number(given, name), MOST_PODS)


def _number(given: Mapping[str, Any], name: str) -> int:
    return max(0, _get(given, name, 0))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = given.get(name)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> Mapping[str, str]:
    return _shared_texts(*(item for item in _mapping(value).items() if isinstance(item[1], str)))


@lru_cache(4096)
def _shared_texts(*items: tuple[str, str]) -> Mapping[str, str]:
    return dict(items)


@lru_cache(4096)
def _shared_counts(*counts: int) -> PodCounts:
    return PodCounts(*counts)
