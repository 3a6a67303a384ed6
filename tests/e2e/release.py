"""The chart on a cluster, installed by helm."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from cluster.command import run
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from tests.e2e.image import TAG

CHART = Path(__file__).parents[2] / "charts/tokenbucket"
NAME = "tokenbucket"
NAMESPACE = "tokenbucket-system"
AGENTS = "app.kubernetes.io/component=agent"
CONTROLLER = "app.kubernetes.io/component=controller"
TIMEOUT_S = 240
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Release:
    """The release. All methods raise ClusterError, with the message of helm or kubectl."""

    admin: Kubectl

    @property
    def kubectl(self) -> Kubectl:
        """Return commands in the namespace of the release."""
        return Kubectl(self.admin.kubeconfig, self.admin.program, NAMESPACE)

    def install(self, image: str = "", **values: object) -> None:
        """Run ``helm upgrade --install`` and wait. In names of values, ``__`` stands for a dot."""
        changed = {name.replace("__", "."): value for name, value in values.items()}
        given = {**values_of_tests(image), **changed}
        sets = [f"--set={name}={value}" for name, value in given.items()]
        self._helm("upgrade", "--install", NAME, str(CHART), "--create-namespace", *sets)
        self.wait()

    def exists(self) -> bool:
        """Return whether the release is installed."""
        return NAME in self._helm("list", "--short").split()

    @contextlib.contextmanager
    def installed_with(self, image: str = "", **values: object) -> Iterator[Self]:
        """Change the release for a block. Then restore its defaults, also if the change fails."""
        try:
            self.install(image, **values)
            yield self
        finally:
            self.install()

    def wait(self) -> None:
        """Wait until every agent and the controller are ready."""
        self.kubectl.rolled_out("daemonset/tokenbucket-agent", timeout_s=TIMEOUT_S)
        self.kubectl.rolled_out("deployment/tokenbucket-controller", timeout_s=TIMEOUT_S)

    def rollback(self) -> None:
        """Run ``helm rollback`` to the previous revision."""
        self._helm("rollback", NAME)
        self.wait()

    def uninstall(self) -> str:
        """Run ``helm uninstall``. Return its output."""
        return self._helm("uninstall", NAME, "--ignore-not-found", "--wait", f"--timeout={TIMEOUT_S}s")

    def enforce(self, how: str) -> None:
        """Set the enforcement mode: Enforce, Observe or Off."""
        self.kubectl.run(
            "patch", "configmap", NAME, "--type=merge", f'--patch={{"data":{{"enforcement":"{how}"}}}}'
        )

    def agent(self, node: str) -> str:
        """Return the name of the agent's pod on a node."""
        pods = self.kubectl.items("pods", f"--selector={AGENTS}", f"--field-selector=spec.nodeName={node}")
        there = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not there:
            raise ClusterError(NAME, f"no agent on {node}")
        return str(there[0])

    def _helm(self, *words: str) -> str:
        helm = Path(self.admin.program).with_name("helm") if "/" in self.admin.program else None
        program = str(helm) if helm else shutil.which("helm")
        if program is None:
            raise ClusterError("helm", "not found in PATH")
        # With its errors, to which it also counts what hooks print.
        together = ["sh", "-c", 'exec "$@" 2>&1', "sh", program]
        argv = [*together, f"--kubeconfig={self.admin.kubeconfig}", f"--namespace={NAMESPACE}", *words]
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return run(argv, part=f"helm {words[0]}", env=env, timeout_s=TIMEOUT_S + 60)


def values_of_tests(image: str = "") -> dict[str, object]:
    """Return the chart's values with which the tests install it."""
    return {
        **_image(image),
        # All agents at once: a rollout that is careful would take the tests minutes.
        "agent.updateStrategy.rollingUpdate.maxUnavailable": "100%",
        "agent.startJitterSeconds": 0,
        # In nodes of kind, systemd does not mount it.
        "agent.mountBpffs": str("TOKENBUCKET_E2E_KUBECONFIG" in os.environ).lower(),
    }


def image_values() -> dict[str, str]:
    """Return the value ``image`` of the chart, for the image of this checkout."""
    return {name.removeprefix("image."): value for name, value in _image("").items()}


def _image(tag: str) -> dict[str, str]:
    """Return the chart's values for an image that the nodes were given. With no tag, for the one that
    ``$TOKENBUCKET_E2E_IMAGE`` names, pulled each time since somebody may have pushed it anew; otherwise for
    this checkout's.
    """
    named = "" if tag else os.environ.get("TOKENBUCKET_E2E_IMAGE", "")
    repository, _, tag = (tag or named or TAG).rpartition(":")
    return {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": "Always" if named else "Never",
    }


def policy(name: str, app: str | None = None, **spec: object) -> dict[str, Any]:
    """Return a TokenBucketPolicy for the pods with this label, or for all."""
    selector = {"matchLabels": {"app": app}} if app else {}
    return {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": selector, **spec},
    }


def condition(kubectl: Kubectl, name: str, kind: str) -> dict[str, Any]:
    """Return a condition of a policy's status; empty if this generation has none."""
    return _condition(kubectl.get("tbp", name), kind)


def _condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    generation = document["metadata"]["generation"]
    found = document.get("status", {}).get("conditions", [])
    return next(
        (each for each in found if each["type"] == kind and each.get("observedGeneration") == generation), {}
    )


def wait_ready(kubectl: Kubectl, name: str, pods: int) -> None:
    """Wait until a policy is enforced on a number of pods, and the agents of their nodes are ready.
    Kubernetes reports nodes as not ready for up to 87 s after an outage of the API server.
    """

    def active() -> bool:
        document = kubectl.get("tbp", name)
        ready = _condition(document, "Ready").get("status") == "True"
        return ready and document["status"]["pods"]["programmed"] == pods

    until(active, lambda: kubectl.run("get", "tbp", name, "--output=yaml"), timeout_s=180)


def until(holds: Callable[[], Found], explain: Callable[[], str] = str, timeout_s: float = 60.0) -> Found:
    """Wait until the condition holds, and return it. Raises AssertionError with the explanation."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.3)
    return found
