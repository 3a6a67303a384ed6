"""Find the pods on nodes without a recent or complete report. Such a node affects only their policies.

A few nodes are read one by one. Many nodes, such as virtual nodes that run no agent, are read together: the
pods of each namespace with policies, in pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import PODS, Selection, metadata_of
from tokenbucket.controller.pod_lists import PodLists
from tokenbucket.core.status.summary import PolicyHead

_FEW = 100
"""Maximum number of nodes that are read one by one."""
_NEXT_RUN_S = 1.0
_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(slots=True)
class SilentNodes:
    """The pods of silent nodes, read again from time to time. ``again`` requests a run after seconds."""

    again: Callable[[float], None]
    clock: Callable[[], float]
    _nodes: PodLists = field(init=False)
    """The pods of nodes by namespace."""
    _namespaces: PodLists = field(init=False)
    """The pods of namespaces by node."""
    _together: frozenset[str] = frozenset()
    """The nodes that are read together."""
    _alone: frozenset[str] = frozenset()
    """The other nodes. Those that became silent later are read one by one."""

    def __post_init__(self) -> None:
        self._nodes = PodLists(self.clock, _of_node, _namespace)
        self._namespaces = PodLists(self.clock, _of_namespace, self._silent_node)

    async def update(self, client: Client, nodes: Collection[str], namespaces: Collection[str]) -> None:
        """Read the pods of these nodes, and forget all others. Raises ApiError.

        ``namespaces`` are those with policies.
        """
        now = self.clock()
        self._divide(frozenset(nodes))
        wanted = namespaces if self._together else ()
        await self._nodes.update(client, self._alone, now)
        await self._namespaces.update(client, wanted, now)
        if self._alone or wanted:
            due = min(self._nodes.due(self._alone), self._namespaces.due(wanted))
            self.again(max(_NEXT_RUN_S, due - now))

    def _divide(self, nodes: frozenset[str]) -> None:
        """Decide which nodes are read together. All pods are read again if many nodes have become silent."""
        self._together &= nodes
        self._alone = nodes - self._together
        if len(self._alone) > _FEW:
            self._together, self._alone = nodes, frozenset()
            self._namespaces.expire()
        elif len(self._together) <= _FEW // 2:
            self._together, self._alone = frozenset(), nodes

    def _silent_node(self, pod: Mapping[str, Any]) -> str:
        """Return the node of a pod, or an empty text if it is not one that is read together."""
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        return node if node in self._together else ""

    def unread(self, head: PolicyHead) -> bool:
        """Return whether pods that a policy can select have not been read yet."""
        return self._nodes.unread(self._alone) or bool(
            self._together and self._namespaces.unread([head.namespace])
        )

    async def affected(self, head: PolicyHead, nodes: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes with a pod that the policy selects, and the nodes whose pods are unknown.

        Without the nodes that have not been read yet.
        """
        asked = frozenset(nodes)
        found = {name for name in asked & self._alone if self._selects(head, name)}
        if pods := self._namespaces.known.get(head.namespace):
            selected = self._together if pods.groups is None else await pods.selected(head.selector)
            found |= selected & asked & self._together
        return tuple(sorted(found))

    def _selects(self, head: PolicyHead, node: str) -> bool:
        pods = self._nodes.known.get(node)
        if not pods or pods.groups is None:
            return pods is not None
        return pods.selects(head.selector, head.namespace)


def _of_node(name: str) -> tuple[Selection, None]:
    return Selection(PODS, f"spec.nodeName={name},{_ENDED}"), None


def _of_namespace(name: str) -> tuple[Selection, str]:
    return Selection(PODS, _ENDED), name


def _namespace(pod: Mapping[str, Any]) -> str:
    return str(metadata_of(pod).get("namespace") or "")
