"""Find the pods on nodes without a recent report. Such a node affects only policies that select its pods."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import PODS, Selection, metadata_of
from tokenbucket.core.status.summary import PolicyHead
from tokenbucket.errors import ApiError

_FORBIDDEN = 403
_KEPT_S = 30.0
_PER_RUN = 20
"""Maximum number of lists per run. Many nodes can become silent at once."""
_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True)
class _Pods:
    read_at: float
    by_namespace: Mapping[str, tuple[Mapping[str, str], ...]]
    """Labels of the pods by namespace."""


@dataclass(slots=True)
class SilentNodes:
    """The pods of silent nodes, read again from time to time."""

    _pods: dict[str, _Pods] = field(default_factory=dict)

    async def update(self, client: Client, nodes: Collection[str], now: float) -> None:
        """Read the pods of these nodes, and forget all others. Raises ApiError."""
        self._pods = {name: pods for name, pods in self._pods.items() if name in nodes}
        due = [name for name in nodes if name not in self._pods or now - self._pods[name].read_at > _KEPT_S]
        for name in due[:_PER_RUN]:
            await self._read(client, name, now)

    async def _read(self, client: Client, node: str, now: float) -> None:
        selection = Selection(PODS, f"spec.nodeName={node},{_ENDED}")
        try:
            items = await client.list(selection)
        except ApiError as error:
            if error.status != _FORBIDDEN:  # by the role of an earlier release
                raise
            return
        found: dict[str, list[Mapping[str, str]]] = {}
        for item in items:
            metadata = metadata_of(item)
            found.setdefault(str(metadata.get("namespace")), []).append(metadata.get("labels") or {})
        self._pods[node] = _Pods(now, {namespace: tuple(labels) for namespace, labels in found.items()})

    def concerned(self, head: PolicyHead, nodes: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes with a pod that the policy selects, and the nodes whose pods are unknown."""
        return tuple(
            name for name in nodes if name not in self._pods or self._selects(head, self._pods[name])
        )

    def _selects(self, head: PolicyHead, pods: _Pods) -> bool:
        labels = pods.by_namespace.get(head.namespace, ())
        return any(head.selector is None or head.selector.matches(each) for each in labels)
