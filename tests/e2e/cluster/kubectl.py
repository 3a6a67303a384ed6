"""kubectl for tests, against any cluster that a kubeconfig names."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import run
from .errors import ClusterError, tail

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Commands in one namespace; an empty one leaves it to the objects.

    All raise ClusterError with the message of kubectl.
    """

    kubeconfig: Path
    program: str = "kubectl"
    namespace: str = "default"

    def run(self, *words: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run ``kubectl words...``. Return its output."""
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        argv = [self.program, f"--kubeconfig={self.kubeconfig}", *namespace, *words]
        return run(argv, part=f"kubectl {words[0]}", env=self._env(), stdin=stdin, timeout_s=timeout_s)

    def get(self, *words: str) -> Any:
        """Return the document of ``kubectl get words...``."""
        return json.loads(self.run("get", "--output=json", *words))

    def items(self, *words: str) -> list[Any]:
        """Return the items of a list."""
        return list(self.get(*words)["items"])

    def apply(self, *documents: Document) -> None:
        """Apply documents."""
        self.run("apply", "--filename=-", stdin=_as_list(documents))

    def delete(self, *documents: Document) -> None:
        """Delete the objects of the documents, and wait. Missing objects are no failure."""
        self.run("delete", "--ignore-not-found", "--filename=-", stdin=_as_list(documents))

    def exec(self, pod: str, *argv: str, timeout_s: float = 60.0) -> str:
        """Run a command in a pod. Return its output."""
        return self.run("exec", pod, "--", *argv, timeout_s=timeout_s)

    def wait(self, condition: str, *what: str, timeout_s: float = 60.0) -> None:
        """Wait for a condition of existing objects. A failure shows pods and last events of the namespace."""
        self._explained("wait", *what, f"--for={condition}", timeout_s=timeout_s)

    def rolled_out(self, what: str, timeout_s: float = 60.0) -> None:
        """Wait until a Deployment or DaemonSet runs as declared. A failure is explained as by ``wait``."""
        self._explained("rollout", "status", what, timeout_s=timeout_s)

    def _explained(self, *words: str, timeout_s: float) -> None:
        try:
            self.run(*words, f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s + 10)
        except ClusterError as error:
            raise ClusterError(
                f"kubectl {words[0]}", error.reason, f"{error.output}\n{self.explain()}"
            ) from error

    def explain(self) -> str:
        """Return pods and last events of the namespace, and the ends of logs of containers that are not
        ready.
        """
        parts = [self._try("get", "pods", "--output=wide"), tail(self._try("get", "events"), 15)]
        parts += [
            self._try("logs", pod["metadata"]["name"], "--all-containers", "--tail=15")
            for pod in json.loads(self._try("get", "pods", "--output=json") or '{"items": []}')["items"]
            if not _ready(pod)
        ]
        return "\n".join(part for part in parts if part)

    @contextlib.contextmanager
    def fresh_namespace(self, name: str) -> Iterator[Kubectl]:
        """Provide commands in a new namespace, which is deleted after the block."""
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.apply(document)
        try:
            # No pod can be made before it.
            self.run("wait", "--for=create", f"--namespace={name}", "serviceaccount/default")
            yield Kubectl(self.kubeconfig, self.program, name)
        finally:
            self.run("delete", "namespace", name, timeout_s=120)

    def _try(self, *words: str) -> str:
        try:
            return self.run(*words)
        except ClusterError:
            return ""

    def _env(self) -> dict[str, str]:
        # A proxy of the machine is not for the cluster.
        return {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in ("http_proxy", "https_proxy")
        }


def _as_list(documents: tuple[Document, ...]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})


def _ready(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
