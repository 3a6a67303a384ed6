"""Find the pods on nodes without a recent or complete report. Such a node affects only their policies."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tokenbucket.apiserver.client import FORBIDDEN, Client
from tokenbucket.apiserver.resources import PODS, Selection, metadata_of
from tokenbucket.core.status.summary import PolicyHead
from tokenbucket.errors import ApiError

_KEPT_S = 30.0
_PER_RUN = 20
"""Maximum number of lists per run. Many nodes can become silent at once."""
_NEXT_RUN_S = 1.0
_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True)
class _Pods:
    read_at: float
    by_namespace: Mapping[str, tuple[Mapping[str, str], ...]] | None
    """Labels of the pods by namespace. ``None`` if the API server rejected the read."""


@dataclass(slots=True)
class SilentNodes:
    """The pods of silent nodes, read again from time to time. ``again`` requests a run after seconds."""

    again: Callable[[float], None]
    unread: bool = False
    """Whether the pods of some nodes have not been read yet. No policy may become ready then."""
    _pods: dict[str, _Pods] = field(default_factory=dict)

    async def update(self, client: Client, nodes: Collection[str], now: float) -> None:
        """Read the pods of these nodes, and forget all others. Raises ApiError."""
        self._pods = {name: pods for name, pods in self._pods.items() if name in nodes}
        read_at = {name: self._pods[name].read_at if name in self._pods else -math.inf for name in nodes}
        due = sorted((name for name in nodes if now - read_at[name] >= _KEPT_S), key=read_at.__getitem__)
        for name in due[:_PER_RUN]:
            await self._read(client, name, now)
        if due:
            self.again(_NEXT_RUN_S if due[_PER_RUN:] else _KEPT_S)
        self.unread = len(self._pods) < len(nodes)

    async def _read(self, client: Client, node: str, now: float) -> None:
        selection = Selection(PODS, f"spec.nodeName={node},{_ENDED}")
        try:
            items = await client.list(selection)
        except ApiError as error:
            if not error.status:
                raise
            known = self._pods.get(node)
            if known and error.status != FORBIDDEN:
                self._pods[node] = replace(known, read_at=now)  # the API server is overloaded
            else:  # also by the role of an earlier release
                self._pods[node] = _Pods(now, None)
            return
        found: dict[str, list[Mapping[str, str]]] = {}
        for item in items:
            metadata = metadata_of(item)
            found.setdefault(str(metadata.get("namespace")), []).append(metadata.get("labels") or {})
        self._pods[node] = _Pods(now, {namespace: tuple(labels) for namespace, labels in found.items()})

    def affected(self, head: PolicyHead, nodes: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes with a pod that the policy selects, and the nodes whose pods are unknown.

        Without the nodes that have not been read yet.
        """
        return tuple(name for name in nodes if name in self._pods and self._selects(head, self._pods[name]))

    def _selects(self, head: PolicyHead, pods: _Pods) -> bool:
        if pods.by_namespace is None:
            return True
        labels = pods.by_namespace.get(head.namespace, ())
        return any(head.selector is None or head.selector.matches(each) for each in labels)
