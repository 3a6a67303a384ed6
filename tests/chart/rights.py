"""What each service account of the chart needs, and may do."""

from __future__ import annotations

from tests.chart.chart import Document

READ = frozenset({"get", "list", "watch"})
Rights = dict[tuple[str, str], frozenset[str]]

POLICIES, STATUS = (
    ("tokenbucket.dev", "tokenbucketpolicies"),
    ("tokenbucket.dev", "tokenbucketpolicies/status"),
)
REPORTS = ("tokenbucket.dev", "tokenbucketnodes")
PODS, POD_STATUS, NODES = ("", "pods"), ("", "pods/status"), ("", "nodes")
CONFIG_MAPS, EVENTS, DAEMON_SETS = ("", "configmaps"), ("", "events"), ("apps", "daemonsets")

EVERYWHERE: dict[str, Rights] = {
    "tokenbucket-agent": {
        POLICIES: READ,
        PODS: READ,
        NODES: READ,
        REPORTS: frozenset({"get", "create", "patch"}),
    },
    "tokenbucket-controller": {
        POLICIES: READ,
        STATUS: frozenset({"get", "patch"}),
        REPORTS: READ | {"patch", "delete"},
        NODES: READ,
        EVENTS: frozenset({"create"}),
    },
    "tokenbucket-cleanup": {REPORTS: frozenset({"list", "delete"}), NODES: frozenset({"list"})},
    "tokenbucket-check": {POLICIES: frozenset({"list"}), REPORTS: frozenset({"list"})},
}
IN_THE_RELEASES_NAMESPACE: dict[str, Rights] = {
    "tokenbucket-agent": {CONFIG_MAPS: READ},
    "tokenbucket-controller": {PODS: READ},
    "tokenbucket-cleanup": {CONFIG_MAPS: frozenset({"patch"})},
    "tokenbucket-check": {PODS: frozenset({"list"}), DAEMON_SETS: frozenset({"list"})},
}


def rights(role: Document) -> Rights:
    """The rules of a role, by API group and resource."""
    return {
        (group, resource): frozenset(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
