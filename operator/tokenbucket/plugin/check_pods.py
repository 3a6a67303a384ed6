"""The short-lived pods of ``kubectl tokenbucket check``: one for each node, with the rights of an agent."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.core.status.node_check import Finding, NodeCheck, State
from tokenbucket.plugin.connection import Connection
from tokenbucket.plugin.errors import DeniedError, MissingError, PluginError, RefusedError
from tokenbucket.plugin.live import release_of
from tokenbucket.plugin.resources import AGENTS, CHECK_LABEL, PODS

_POLL_S = 1.0
_ENDED = {"Succeeded", "Failed"}
_NO_IMAGE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
"""The reasons of a kubelet for a container without an image."""
_CNI_RESULTS = "/var/lib/cni/results"
_CAPABILITIES = ["NET_ADMIN", "NET_BROADCAST", "BPF", "PERFMON", "SYS_ADMIN"]
"""Those of the chart's agent."""


def pod_of(name: str, run: str, node: str, image: str, longest_s: int) -> dict[str, Any]:
    """Return the pod that checks a node. Like the agent, it is not privileged."""
    mounts = [
        {"name": "bpffs", "mountPath": "/sys/fs/bpf", "mountPropagation": "HostToContainer"},
        {"name": "cni-results", "mountPath": _CNI_RESULTS, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
    ]
    container = {
        "name": "check",
        "image": image,
        "args": ["check", "--output", "json", "--node", node],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "320Mi"}},
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": _CAPABILITIES},
        },
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": "tokenbucket-check", CHECK_LABEL: run},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": longest_s,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                "runAsUser": 0,
                "runAsGroup": 0,
                "runAsNonRoot": False,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "bpffs", "hostPath": {"path": "/sys/fs/bpf", "type": "Directory"}},
                {"name": "cni-results", "hostPath": {"path": _CNI_RESULTS, "type": "DirectoryOrCreate"}},
                {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            ],
        },
    }


def image_of_agents(connection: Connection) -> str:
    """Return the image of an installed agent; empty without one, or without the rights to find it."""
    namespace = release_of(connection).partition("/")[0]
    if not namespace:
        return ""
    try:
        pods = connection.list(PODS, namespace, labelSelector=AGENTS)
    except DeniedError:
        return ""
    images = (each["image"] for pod in pods for each in pod["spec"]["containers"] if each["name"] == "agent")
    return next(images, "")


@dataclass(slots=True)
class CheckPods:
    """The pods of one run of the command."""

    connection: Connection
    namespace: str
    image: str
    longest_s: int
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    _names: dict[str, str] = field(default_factory=dict)
    """By node."""

    def results(self, nodes: Collection[str]) -> Iterator[NodeCheck]:
        """Yield a result for each node, as they arrive. Raises PluginError; no pod is left in any case."""
        with self._removed():
            for number, node in enumerate(dict.fromkeys(nodes)):
                self._create(node, f"tokenbucket-check-{self.run}-{number}")
            waiting, give_up_s = dict(self._names), time.monotonic() + self.longest_s
            while waiting:
                pods = {pod["metadata"]["name"]: pod for pod in self._list()}
                for node, name in list(waiting.items()):
                    pod, is_late = pods.get(name, {}), time.monotonic() > give_up_s
                    if result := self._result(node, pod, is_late=is_late):
                        del waiting[node]
                        yield result
                if waiting:
                    time.sleep(_POLL_S)

    def _create(self, node: str, name: str) -> None:
        document = pod_of(name, self.run, node, self.image, self.longest_s)
        self._names[node] = name
        right = f"create pods in namespace {self.namespace}"
        try:
            self.connection.request("POST", PODS.path(self.namespace), right, body=document)
        except RefusedError:  # after all other errors, the pod may exist
            del self._names[node]
            raise

    def _list(self) -> list[dict[str, Any]]:
        return self.connection.list(PODS, self.namespace, labelSelector=f"{CHECK_LABEL}={self.run}")

    def _result(self, node: str, pod: dict[str, Any], *, is_late: bool) -> NodeCheck | None:
        """Return the result of a node, or ``None`` if its pod may still start or end."""
        if (pod.get("status") or {}).get("phase") in _ENDED:
            return self._result_of_ended(node, pod)
        if _reason(pod) in _NO_IMAGE:
            return NodeCheck(node, (self._without_image(pod),))
        return _failed(node, f"no result after {self.longest_s} s: {_why_waiting(pod)}") if is_late else None

    def _without_image(self, pod: dict[str, Any]) -> Finding:
        action = "set --image to an image that the node has or can pull"
        return Finding("image", State.UNKNOWN, f"{self.image}: {_why_waiting(pod)}", action)

    def _result_of_ended(self, node: str, pod: dict[str, Any]) -> NodeCheck:
        path = PODS.path(self.namespace, self._names[node]) + "/log"
        cause = _why_ended(pod)
        try:
            text = self.connection.text(path, f"get pods/log in namespace {self.namespace}")
        except PluginError as error:
            return _failed(node, cause or str(error))
        try:
            return NodeCheck.of_document(json.JSONDecoder().raw_decode(text, text.index("{"))[0])
        except (ValueError, KeyError, TypeError):
            return _failed(
                node, text.strip().rpartition("\n")[2] or cause or "the pod ended without a result"
            )

    @contextmanager
    def _removed(self) -> Iterator[None]:
        """Remove all pods at the end of the block, also those whose creation was not answered.

        An error of the block stays, with a note about pods that are left.
        """
        try:
            yield
        except BaseException as error:
            if problem := self._problem_of_removal():
                error.add_note(problem)
            raise
        if problem := self._problem_of_removal():
            raise PluginError(problem)

    def _problem_of_removal(self) -> str:
        """Remove all pods. Return the problem if some are left, also if the user interrupts the removal."""
        command = f"kubectl delete pods -n {self.namespace} -l {CHECK_LABEL}={self.run}"
        try:
            errors = [error for name in self._names.values() if (error := self._error_of_removal(name))]
        except KeyboardInterrupt:
            return f"pods: their removal was interrupted; run {command}"
        return f"pods: {len(errors)} not removed: {errors[0]}; run {command}" if errors else ""

    def _error_of_removal(self, name: str) -> PluginError | None:
        """Remove a pod. Return the error of a failure."""
        path, right = PODS.path(self.namespace, name), f"delete pods in namespace {self.namespace}"
        try:
            with suppress(MissingError):
                self.connection.request("DELETE", path, right)
        except PluginError as error:
            return error
        return None


def _failed(node: str, detail: str) -> NodeCheck:
    return NodeCheck(
        node, (Finding("check", State.UNKNOWN, detail, "see the events of the pod's namespace"),)
    )


def _why_ended(pod: dict[str, Any]) -> str:
    """Return why a kubelet or the control plane ended a pod; empty if the pod ended by itself."""
    status = pod.get("status") or {}
    return str(status.get("message") or status.get("reason") or "")


def _waiting(pod: dict[str, Any]) -> dict[str, str]:
    """Return why a container of a pod does not run; empty if none waits."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((found for each in containers if (found := (each.get("state") or {}).get("waiting"))), {})


def _reason(pod: dict[str, Any]) -> str:
    return str(_waiting(pod).get("reason", ""))


def _why_waiting(pod: dict[str, Any]) -> str:
    """Return the reason for which a pod does not run."""
    status = pod.get("status") or {}
    if waiting := _waiting(pod):
        return f"{waiting.get('reason', 'waiting')}: {waiting.get('message', '')}".rstrip(": ")
    return str(status.get("message") or status.get("phase") or "the pod does not exist")
