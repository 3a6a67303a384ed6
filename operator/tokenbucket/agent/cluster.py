"""The declared state of a node in a cluster, from the API server and from the CNI result cache."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tokenbucket.agent.options import AgentOptions
from tokenbucket.agent.start_delay import StartDelay
from tokenbucket.apiserver.informers import Informers
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, PODS, POLICIES, Selection, metadata_of
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.cni import CniResults
from tokenbucket.core.api.enforcement import (
    NODE_LABEL,
    Enforcement,
    EnforcementConfig,
    EnforcementSetting,
    parse_enforcement_config,
    parse_setting,
)
from tokenbucket.core.api.parse import parse_pod, parse_policy
from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Policy, RejectedPolicy
from tokenbucket.core.api.protection import protection_error
from tokenbucket.core.status.node_status import DesiredInput
from tokenbucket.errors import SpecError

log = logging.getLogger(__name__)

NOT_READY_TAINT = "tokenbucket.dev/agent-not-ready"


class ClusterSource:
    """Stores that watches fill, and the CNI result cache. Their changes wake the loop.

    Raises UnsupportedError without credentials.
    """

    def __init__(self, options: AgentOptions) -> None:
        self.options = options
        self.start_delay = StartDelay(options.start_jitter_s)
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self.policies: Store[Policy | RejectedPolicy] = Store(
            policy_reader(options.protected), self._wake, keep_last_valid
        )
        self.pods: Store[Pod] = Store(pod_reader(options), self._wake)
        self._node: Store[ThisNode] = Store(read_node, self._wake)
        self.config: Store[EnforcementConfig] = Store(read_config, self._wake)
        self.override: Store[EnforcementConfig] = Store(read_override, self._wake)
        self._cni = CniResults(options.cni_results)
        self._poll = select.epoll()
        for readable in (self._wakeup, self._cni):
            self._poll.register(readable, select.EPOLLIN)
        own_pods = Selection(PODS, f"spec.nodeName={options.node}")
        own_node = Selection(NODES, f"metadata.name={options.node}")
        own_config = Selection(CONFIG_MAPS, f"metadata.name={options.config_map}")
        override = Selection(CONFIG_MAPS, f"metadata.name={options.override_config_map}")
        self.informers = Informers(
            Watch(Selection(POLICIES), self.policies),
            Watch(own_pods, self.pods),
            Watch(own_node, self._node),
            Watch(own_config, self.config, options.namespace),
            Watch(override, self.override, options.namespace),
        )
        self.last_polled_at = time.monotonic()
        """Time of the last snapshot."""
        self._enforcement = Enforcement()
        self._received_at: float | None = None

    def start(self) -> None:
        """Start to watch after a random delay."""
        self.informers.start(self.start_delay.seconds)

    def __str__(self) -> str:
        return f"API server, for node {self.options.node}"

    def fileno(self) -> int:
        """Return the file descriptor that is readable when an object or the CNI cache has changed."""
        return self._poll.fileno()

    def drain(self) -> None:
        """Read all pending notifications."""
        self._cni.drain()
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass

    def reread(self) -> None:
        """Read the CNI result cache again. The informers list the objects again by themselves."""
        self._cni.reread()

    def snapshot(self) -> DesiredInput | None:
        """Return policies, pods and the enforcement mode; ``None`` until all of them have been listed."""
        self.last_polled_at = time.monotonic()
        if not self.informers.synced:
            return None
        received_at, self._received_at = self._received_at, None  # before the stores, which may be newer
        self._read_enforcement()
        version = self.policies.version  # before the policies, which may be newer
        found = self.policies.values()
        rejected = tuple(policy for policy in found if isinstance(policy, RejectedPolicy))
        last_valid = tuple(policy.last_valid for policy in rejected if policy.last_valid)
        return DesiredInput(
            tuple(policy for policy in found if isinstance(policy, Policy)) + last_valid,
            self._pods(),
            self._enforcement.mode,
            self._enforcement.cleanup,
            rejected,
            "; ".join(filter(None, (self._enforcement.problem, self._enforcement.notice))),
            self._enforcement.decided_by,
            version,
            received_at,
        )

    def _read_enforcement(self) -> None:
        """Read the enforcement mode, and log a change of it and each new problem."""
        before = self._enforcement
        node = self.this_node
        config = self.config.get(self.options.namespace, self.options.config_map)
        override = self.override.get(self.options.namespace, self.options.override_config_map)
        now = self._enforcement = before.update(config, node.enforcement if node else None, override)
        if now.problem and now.problem != before.problem:
            log.error("enforcement setting rejected", extra={"error": now.problem})
        if now.mode is not before.mode:
            fields = {"before": before.mode, "now": now.mode, "by": now.decided_by}
            log.warning("enforcement mode changed", extra=fields)

    @property
    def this_node(self) -> ThisNode | None:
        """Return the node of the agent; ``None`` until it has been listed."""
        return self._node.get("", self.options.node)

    def _pods(self) -> tuple[Pod, ...]:
        """Return the pods with their entries in the CNI result cache."""
        self._cni.refresh()
        return tuple(with_sandboxes(pod, self._cni) for pod in self.pods.values())

    def close(self) -> None:
        """Stop the watches."""
        self.informers.stop()
        for resource in (self._cni, self._poll, self._wakeup, self._waker):
            resource.close()

    def _wake(self) -> None:
        if self._received_at is None:
            self._received_at = time.monotonic()
        with contextlib.suppress(OSError):  # the buffer is full, or the source is closed
            self._waker.send(b"\0")


@dataclass(frozen=True, slots=True)
class ThisNode:
    """The agent's own node."""

    name: str
    uid: str
    enforcement: EnforcementSetting
    """The setting of the label, which has precedence over the ConfigMap of the release."""
    tainted: bool


def with_sandboxes(pod: Pod, results: CniResults) -> Pod:
    """Return a pod with its CNI results. Those of a static pod have the uid that the kubelet gave it."""
    known_as = replace(pod.id, uid=pod.static_uid) if pod.static_uid else pod.id
    sandboxes = () if pod.ended else results.of(known_as)
    return replace(pod, sandboxes=sandboxes) if sandboxes else pod


def policy_reader(protected: Collection[str]) -> Callable[[Mapping[str, Any]], Policy | RejectedPolicy]:
    """Return a reader of policies; one in a protected namespace needs a label that allows it."""

    def read(document: Mapping[str, Any]) -> Policy | RejectedPolicy:
        metadata = metadata_of(document)
        if message := protection_error(metadata, protected):
            return _rejected(metadata, message, forbidden=True)
        try:
            return parse_policy({**document, "status": None})
        except SpecError as error:
            return _rejected(metadata, "; ".join(str(problem) for problem in error.problems))

    return read


def keep_last_valid(
    before: Policy | RejectedPolicy | None, now: Policy | RejectedPolicy | None
) -> Policy | RejectedPolicy | None:
    """Return the new state of a policy. A rejected policy keeps its last valid version."""
    return now.after(before) if isinstance(now, RejectedPolicy) else now


def _rejected(metadata: Mapping[str, Any], message: str, *, forbidden: bool = False) -> RejectedPolicy:
    return RejectedPolicy(
        str(metadata.get("namespace") or ""),
        str(metadata.get("name") or ""),
        str(metadata.get("uid") or ""),
        int(metadata.get("generation") or 0),
        message,
        forbidden,
    )


def pod_reader(options: AgentOptions) -> Callable[[Mapping[str, Any]], Pod | None]:
    """Return a reader of pods. Annotations in a protected namespace need a label, as policies there."""

    def read(document: Mapping[str, Any]) -> Pod | None:
        try:
            pod = parse_pod({**document, "kind": "Pod"}, annotations=options.bandwidth_annotations)
        except SpecError as error:
            log.warning("pod not read", extra={"error": str(error)})
            return None
        if not pod.annotated:
            return pod
        message = protection_error(metadata_of(document), options.protected, "limit in annotations")
        return replace(pod, annotated=pod.annotated.rejected(message)) if message else pod

    return read


def read_node(document: Mapping[str, Any]) -> ThisNode:
    """Return the agent's node."""
    metadata, spec = metadata_of(document), document.get("spec") or {}
    setting = parse_setting(f"label {NODE_LABEL}", (metadata.get("labels") or {}).get(NODE_LABEL))
    taints = {taint.get("key") for taint in spec.get("taints") or ()}
    return ThisNode(str(metadata.get("name")), str(metadata.get("uid")), setting, NOT_READY_TAINT in taints)


def read_config(document: Mapping[str, Any]) -> EnforcementConfig:
    """Return the settings in the ConfigMap of the release."""
    return parse_enforcement_config(document.get("data") or {})


def read_override(document: Mapping[str, Any]) -> EnforcementConfig:
    """Return the settings in the override ConfigMap."""
    created = str(metadata_of(document).get("creationTimestamp") or "")
    return parse_enforcement_config(document.get("data") or {}, "override ConfigMap", created)
