"""The rights that each service account of the chart needs and has."""

from __future__ import annotations

from typing import NamedTuple

from tests.chart.chart import Document

WATCH = frozenset({"list", "watch"})


class What(NamedTuple):
    """Objects of a kind: all of them, or the object with a name."""

    group: str
    resource: str
    name: str = ""


Rights = dict[What, frozenset[str]]

POLICIES = What("tokenbucket.dev", "tokenbucketpolicies")
STATUS = What("tokenbucket.dev", "tokenbucketpolicies/status")
REPORTS = What("tokenbucket.dev", "tokenbucketnodes")
LEASES, LEASE = (
    What("coordination.k8s.io", "leases"),
    What("coordination.k8s.io", "leases", "tokenbucket-controller"),
)
PODS, POD_STATUS, NODES = What("", "pods"), What("", "pods/status"), What("", "nodes")
OVERRIDE = What("", "configmaps", "tokenbucket-override")
SWITCH, EVENTS, DAEMON_SETS = (
    What("", "configmaps", "tokenbucket"),
    What("", "events"),
    What("apps", "daemonsets"),
)

EVERYWHERE: dict[str, Rights] = {
    "tokenbucket-agent": {
        POLICIES: WATCH,
        PODS: WATCH,
        NODES: WATCH,
        REPORTS: WATCH | {"get", "create", "patch"},
    },
    "tokenbucket-controller": {
        POLICIES: WATCH,
        STATUS: frozenset({"patch"}),
        REPORTS: WATCH | {"patch", "delete"},
        NODES: WATCH | {"get"},
        PODS: frozenset({"list"}),
        EVENTS: frozenset({"create"}),
    },
    "tokenbucket-cleanup": {REPORTS: frozenset({"list", "delete"}), NODES: frozenset({"list"})},
    "tokenbucket-check": {POLICIES: frozenset({"list"}), REPORTS: frozenset({"list"})},
}
IN_THE_RELEASES_NAMESPACE: dict[str, Rights] = {
    "tokenbucket-agent": {SWITCH: WATCH, OVERRIDE: WATCH},
    "tokenbucket-controller": {PODS: WATCH},
    "tokenbucket-cleanup": {SWITCH: frozenset({"create", "patch"}), DAEMON_SETS: frozenset({"list"})},
    "tokenbucket-check": {PODS: frozenset({"list"}), DAEMON_SETS: frozenset({"list"})},
}
IN_KUBE_SYSTEM: dict[str, Rights] = {
    "tokenbucket-controller": {LEASE: frozenset({"get", "update"}), LEASES: frozenset({"create"})},
}
"""The Lease of the leader, which all releases share."""


def rights(role: Document) -> Rights:
    """Return the rules of a role."""
    return {
        What(group, resource, name): frozenset(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
