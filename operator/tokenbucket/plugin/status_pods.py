"""Read the reports of nodes, or the live figures of pods without the right to read reports."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tokenbucket.core.api.parse import parse_pod
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.plugin.connection import Connection
from tokenbucket.plugin.errors import DeniedError, PluginError
from tokenbucket.plugin.explain.collect import agent_ready
from tokenbucket.plugin.explain.evidence import ReportView
from tokenbucket.plugin.explain.explanation import Explanation
from tokenbucket.plugin.explain.policies import PolicyView, view
from tokenbucket.plugin.live import LiveClient, find_service
from tokenbucket.plugin.pod_states import Known
from tokenbucket.plugin.resources import PODS, POLICIES, REPORTS

Document = dict[str, Any]
_TIMEOUT_S = 10.0


class Collector:
    """Reads the reports at once, and pods only if the reports do not suffice."""

    def __init__(self, connection: Connection, options: argparse.Namespace) -> None:
        self._connection, self._options = connection, options
        self.gaps: list[str] = []
        """The missing rights."""
        self.is_blind = False
        """Whether the pods of the policies are unknown, because neither reports nor pods can be read."""
        self.reports = self._list_reports()
        """``None`` without the right to read them."""

    def _list_reports(self) -> list[Document] | None:
        try:
            return self._connection.list(REPORTS)
        except DeniedError as error:
            self.gaps.append(error.right)
            return None

    def explanations(self, policies: Iterable[Document]) -> list[Explanation]:
        """Return the explanations of the pods with limits: with reports, only of those with annotations."""
        reports = {
            each["metadata"]["name"]: ReportView(parse_report(each), agent_ready(each))
            for each in self.reports or ()
        }
        has_reports = self.reports is not None
        selects = self._options.policy or self._options.selector
        if has_reports and (selects or not any(each.report.annotations for each in reports.values())):
            return []
        pods = self._pods()
        views = self._views(policies)
        live = {} if has_reports else self._live(pods, views)
        known = Known(views, reports if has_reports else None, live, tuple(self.gaps), self._connection.now)
        return [known.explain(pod) for pod in pods if not has_reports or _is_annotated(pod)]

    def _pods(self) -> list[Document]:
        try:
            return self._connection.list(PODS, self._namespace)
        except DeniedError as error:
            self.gaps.append(error.right)
            self.is_blind = True
            return []

    @property
    def _namespace(self) -> str:
        return "" if self._options.all_namespaces else self._connection.namespace

    def _views(self, policies: Iterable[Document]) -> Mapping[str, tuple[PolicyView, ...]]:
        """Return all policies by namespace: those that are not selected can have precedence."""
        if self._options.policy or self._options.selector:
            policies = self._connection.list(POLICIES, self._namespace)
        found: dict[str, list[PolicyView]] = defaultdict(list)
        for each in policies:
            found[each["metadata"]["namespace"]].append(view(each))
        return {namespace: tuple(views) for namespace, views in found.items()}

    def _live(
        self, pods: Iterable[Document], views: Mapping[str, tuple[PolicyView, ...]]
    ) -> Mapping[str, Document]:
        """Return the live answers about the pods that can have limits, as far as the agents answer."""
        uids: dict[str, set[str]] = defaultdict(set)
        for pod in pods:
            labels = pod["metadata"].get("labels") or {}
            selected = any(each.selects(labels) for each in views.get(pod["metadata"]["namespace"], ()))
            if (node := (pod.get("spec") or {}).get("nodeName")) and (selected or _is_annotated(pod)):
                uids[node].add(pod["metadata"]["uid"])
        try:
            client = LiveClient(self._connection, find_service(self._options.live_service, self._connection))
            return client.fetch(uids, _TIMEOUT_S).pods
        except DeniedError as error:
            self.gaps.append(error.right)
        except PluginError:
            if self._options.live_service:
                raise
        return {}


def _is_annotated(pod: Document) -> bool:
    return parse_pod({**pod, "kind": "Pod"}, annotations=True).annotated is not None
