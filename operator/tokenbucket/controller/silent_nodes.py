"""Find the pods on nodes without a recent or complete report. Such a node affects only their policies.

A few nodes are read one by one. Many nodes, such as virtual nodes that run no agent, are read together: the
pods of each namespace with policies, in pages.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenbucket.apiserver.client import FORBIDDEN, Client
from tokenbucket.apiserver.resources import PODS, Selection, metadata_of
from tokenbucket.core.status.summary import PolicyHead
from tokenbucket.errors import ApiError
from tokenbucket.pacing import pause_after

_KEPT_S = 30.0
_PER_RUN = 20
"""Maximum number of lists per run. Many nodes can become silent at once."""
_FEW = 100
"""Maximum number of nodes that are read one by one."""
_PAGE = 250
_SHARE = 0.1
"""Maximum share of the time in which the pods of a namespace are read again."""
_NEXT_RUN_S = 1.0
_ENDED = "status.phase!=Succeeded,status.phase!=Failed"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Pods:
    due: float
    """Time of the next read."""
    groups: Mapping[str, Collection[Labels]] | None
    """Labels of the pods of a node by namespace, or of the pods of a namespace by node. ``None`` if the API
    server rejected the read."""


@dataclass(slots=True)
class SilentNodes:
    """The pods of silent nodes, read again from time to time. ``again`` requests a run after seconds."""

    again: Callable[[float], None]
    clock: Callable[[], float]
    _nodes: dict[str, _Pods] = field(default_factory=dict)
    _namespaces: dict[str, _Pods] = field(default_factory=dict)
    _together: frozenset[str] = frozenset()
    """The nodes that are read together."""
    _alone: frozenset[str] = frozenset()
    """The other nodes. Those that became silent later are read one by one."""

    async def update(self, client: Client, nodes: Collection[str], namespaces: Collection[str]) -> None:
        """Read the pods of these nodes, and forget all others. Raises ApiError.

        ``namespaces`` are those with policies.
        """
        now = self.clock()
        self._divide(frozenset(nodes))
        wanted = namespaces if self._together else ()
        self._nodes = {name: pods for name, pods in self._nodes.items() if name in self._alone}
        self._namespaces = {name: pods for name, pods in self._namespaces.items() if name in wanted}
        late = await self._update(client, self._nodes, self._alone, now)
        late |= await self._update(client, self._namespaces, wanted, now)
        known = [*self._nodes.values(), *self._namespaces.values()]
        if known:
            self.again(_NEXT_RUN_S if late else max(_NEXT_RUN_S, min(pods.due for pods in known) - now))

    def _divide(self, nodes: frozenset[str]) -> None:
        """Decide which nodes are read together. All pods are read again if many nodes have become silent."""
        self._together &= nodes
        self._alone = nodes - self._together
        if len(self._alone) > _FEW:
            self._together, self._alone = nodes, frozenset()
            self._namespaces.clear()
        elif len(self._together) <= _FEW // 2:
            self._together, self._alone = frozenset(), nodes

    async def _update(
        self, client: Client, known: dict[str, _Pods], names: Collection[str], now: float
    ) -> bool:
        """Read the nodes or namespaces that are due. Return whether some are left for the next run."""
        due_at = {name: known[name].due if name in known else -math.inf for name in names}
        due = sorted(
            (name for name, at in due_at.items() if at <= now), key=lambda name: (due_at[name], name)
        )
        requests = 0
        for number, name in enumerate(due):
            if requests >= _PER_RUN:
                return number < len(due)
            requests += await self._read(client, known, name, now)
        return False

    async def _read(self, client: Client, known: dict[str, _Pods], name: str, now: float) -> int:
        """Read the pods of a node or a namespace. Return the number of requests."""
        groups: dict[str, dict[frozenset[tuple[str, str]], Labels]] = {}
        requests, began, due = 0, self.clock(), now + _KEPT_S
        try:
            async for page in self._pages(client, known, name):
                requests += 1
                for item in page:
                    labels = metadata_of(item).get("labels") or {}
                    groups.setdefault(self._group(known, item), {})[frozenset(labels.items())] = labels
        except ApiError as error:
            if not error.status:
                raise
            before = known.get(name)
            if before and error.status != FORBIDDEN:
                known[name] = replace(before, due=due)  # the API server is overloaded
            else:  # also by the role of an earlier release
                known[name] = _Pods(due, None)
            return requests + 1
        due = now + pause_after(self.clock() - began, _KEPT_S, _SHARE)
        groups.pop("", None)
        known[name] = _Pods(due, {group: tuple(labels.values()) for group, labels in groups.items()})
        return requests

    def _pages(
        self, client: Client, known: dict[str, _Pods], name: str
    ) -> AsyncIterator[Sequence[dict[str, Any]]]:
        if known is self._namespaces:
            return client.pages(Selection(PODS, _ENDED), name, _PAGE)
        return client.pages(Selection(PODS, f"spec.nodeName={name},{_ENDED}"), None, _PAGE)

    def _group(self, known: dict[str, _Pods], pod: Mapping[str, Any]) -> str:
        """Return the namespace of a pod or its node, or an empty text for a pod on another node."""
        if known is self._nodes:
            return str(metadata_of(pod).get("namespace") or "")
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        return node if node in self._together else ""

    def unread(self, head: PolicyHead) -> bool:
        """Return whether pods that a policy can select have not been read yet."""
        return len(self._nodes) < len(self._alone) or bool(
            self._together and head.namespace not in self._namespaces
        )

    def affected(self, head: PolicyHead, nodes: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes with a pod that the policy selects, and the nodes whose pods are unknown.

        Without the nodes that have not been read yet.
        """
        asked = frozenset(nodes)
        found, pods = set(asked & self._alone), self._namespaces.get(head.namespace)
        if pods:  # most of thousands of nodes have no pod in the namespace
            found.update(asked.intersection(self._together if pods.groups is None else pods.groups))
        return tuple(sorted(name for name in found if self._selects(head, name)))

    def _selects(self, head: PolicyHead, node: str) -> bool:
        if node in self._together:
            pods, group = self._namespaces.get(head.namespace), node
        else:
            pods, group = self._nodes.get(node), head.namespace
        if not pods or pods.groups is None:
            return pods is not None
        labels = pods.groups.get(group, ())
        return any(head.selector is None or head.selector.matches(each) for each in labels)
