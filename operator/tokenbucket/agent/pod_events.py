"""Create an Event about a pod whose annotations are not valid."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.events import Events
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import NodeState

_MOST = 32
"""Maximum number of events of a node in five minutes. A workload can create pods without end."""


@dataclass(slots=True)
class PodEvents:
    """One event for each pod and change of the problem."""

    _events: Events = field(default_factory=lambda: Events("tokenbucket-agent", _MOST))
    _reported: dict[PodId, str] = field(default_factory=dict)

    async def create(self, client: Client, state: NodeState) -> None:
        """Create events for new problems. Raises ApiError if the API server is unavailable."""
        problems = _invalid_annotations(state)
        self._reported = {pod: text for pod, text in self._reported.items() if pod in problems}
        for pod, text in problems.items():
            if self._reported.get(pod) != text:
                about = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
                reason = Reason.INVALID_ANNOTATION.value
                pod_reference = {"apiVersion": "v1", "kind": "Pod", **about}
                if await self._events.create(client, pod_reference, reason, text):
                    self._reported[pod] = text


def _invalid_annotations(state: NodeState) -> dict[PodId, str]:
    """Return the problems of each pod, of both directions together."""
    found: dict[PodId, list[str]] = defaultdict(list)
    for deviation in state.outcome.deviations:
        subject = deviation.key.subject
        if deviation.reason is Reason.INVALID_ANNOTATION and isinstance(subject, PodId):
            found[subject].append(deviation.message)
    return {pod: "; ".join(dict.fromkeys(texts)) for pod, texts in found.items()}
