"""Each tool that installs the chart enforces limits, leaves no difference, and reverts no override."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import binaries
from cluster.command import run
from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from tests.chart.chart import write_kustomization
from tests.e2e.release import CHART, NAME, NAMESPACE, TIMEOUT_S, Release, image_values, until
from tests.e2e.two_limits import TwoLimits, two_limited_pods

PREVIOUS_VALUES = Path(__file__).parents[1] / "chart/previous_values.yaml"
OVERRIDE = "tokenbucket-override"
NOT_CRDS = "--selector=app.kubernetes.io/component!=crds"


@pytest.fixture
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Create pods without a policy. Install the release again at the end."""
    with two_limited_pods(release, nodes, "installation") as made:
        release.uninstall()
        try:
            yield made
        finally:
            release.install()


@dataclass(frozen=True, slots=True)
class Installation:
    """A way to install the chart, with a helm that renders it."""

    release: Release
    helm: Path
    folder: Path

    def values(self) -> dict[str, Any]:
        return {
            "image": image_values(),
            "agent": {
                "startJitterSeconds": 0,
                "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            },
        }

    def run_helm(self, *words: str) -> str:
        (self.folder / "values.yaml").write_text(yaml.safe_dump(self.values()))
        argv = [
            self.helm,
            f"--kubeconfig={self.release.admin.kubeconfig}",
            f"--namespace={NAMESPACE}",
            *words,
        ]
        return run(argv, part=f"helm {words[0]}", timeout_s=TIMEOUT_S + 60)

    def rendered(self) -> str:
        """Return the objects of the release."""
        return self.template()

    def template(self, *words: str) -> str:
        """Return the output of 'helm template'."""
        return self.run_helm(
            "template", NAME, str(CHART), *self._with_values, "--kube-version=1.36.3", *words
        )

    @property
    def _with_values(self) -> list[str]:
        return ["--values", str(self.folder / "values.yaml")]

    @property
    def anywhere(self) -> Kubectl:
        """Return kubectl without the option --namespace, as users run it for objects that name theirs."""
        return replace(self.release.admin, namespace="")

    def diff(self) -> None:
        """Raise ClusterError, with the differences, unless the cluster has what is declared."""
        words = ("diff", "--server-side", "--force-conflicts", "--filename=-")  # Helm is another field owner
        self.anywhere.run(*words, stdin=self.rendered())


class ByHelm(Installation):
    """'helm upgrade --install' and 'helm uninstall'."""

    def install(self) -> None:
        self.run_helm("upgrade", "--install", NAME, str(CHART), "--create-namespace", *self._with_values)

    def remove(self) -> None:
        self.run_helm("uninstall", NAME, "--wait", f"--timeout={TIMEOUT_S}s")


class ByKubectl(Installation):
    """'kubectl apply' of the output."""

    def install(self) -> None:
        words = ("apply", "--server-side", "--filename=-")
        self.anywhere.run(*words, stdin=self.rendered(), timeout_s=120)

    def remove(self) -> None:
        """As docs/tasks/uninstall.md describes it."""
        kubectl = self.release.kubectl
        kubectl.run(
            "create", "configmap", OVERRIDE, "--from-literal=enforcement=Off", "--from-literal=cleanup=true"
        )
        kubectl.run(
            "wait", "tbn", "--all", "--for=jsonpath={.status.clean}=true", "--timeout=120s", timeout_s=130
        )
        objects = self.rendered()
        words = ("delete", "--filename=-", "--cascade=foreground", NOT_CRDS)  # waits for the pods
        self.anywhere.run(*words, stdin=objects, timeout_s=180)
        kubectl.run("delete", "tbn", "--all")
        kubectl.run("delete", "configmap", OVERRIDE)


class ByKustomize(ByKubectl):
    """The same with kustomize."""

    def rendered(self) -> str:
        write_kustomization(self.folder, self.values())
        program = binaries.kustomize() / "kustomize"
        argv = [program, "build", self.folder, "--enable-helm", f"--helm-command={self.helm}"]
        return run(argv, part="kustomize build")


def helm3() -> Path:
    return binaries.helm() / "helm"


def helm4() -> Path:
    return binaries.helm4() / "helm"


METHODS: dict[str, tuple[type[ByHelm | ByKubectl], Callable[[], Path]]] = {
    "helm 3": (ByHelm, helm3),
    "helm 4": (ByHelm, helm4),
    "kubectl": (ByKubectl, helm4),
    "kustomize": (ByKustomize, helm3),
}


@contextlib.contextmanager
def installed(shop: TwoLimits, method: str, folder: Path) -> Iterator[ByHelm | ByKubectl]:
    """Install, and remove the installation after the block."""
    kind, helm = METHODS[method]
    installation = kind(shop.release, helm(), folder)
    installation.install()
    try:
        shop.release.wait()
        yield installation
    finally:
        installation.remove()


@pytest.mark.parametrize("method", METHODS)
def test_an_installation_is_complete_and_reverts_no_override(
    shop: TwoLimits, shell: NodeShell, method: str, tmp_path: Path
) -> None:
    """Change no declared object by running it. Its removal leaves policies, and no limit."""
    with installed(shop, method, tmp_path) as installation:
        shop.apply()
        shop.wait()
        installation.diff()
        with overridden(shop):
            installation.install()  # an upgrade, or the next synchronization
            installation.diff()
            assert shop.programmed("False", "Off")
            assert "override ConfigMap: sets Off" in shop.kubectl.run("get", "tbn", shop.nodes[0])
        shop.wait()
        installation.diff()
    for node in shop.nodes:
        assert "tokenbucket" not in shell.run(node, "ls", "/sys/fs/bpf")
    assert {each["metadata"]["name"] for each in shop.kubectl.items("tbp")} == {"web", "worker"}


@pytest.mark.parametrize("method", ["helm 3", "helm 4"])
def test_an_upgrade_keeps_the_values_of_the_user_and_the_limits(
    shop: TwoLimits, method: str, tmp_path: Path
) -> None:
    """Upgrade from a chart with the defaults of the previous release, and back, under traffic."""
    with installed(shop, method, tmp_path) as installation:
        assert isinstance(installation, ByHelm)
        old = shutil.copytree(CHART, tmp_path / CHART.name)
        shutil.copy(PREVIOUS_VALUES, old / "values.yaml")
        installation.run_helm("upgrade", NAME, str(old), "--reset-then-reuse-values")
        shop.release.wait()
        shop.apply()
        shop.wait()
        with shop.unbroken():
            installation.run_helm("upgrade", NAME, str(CHART), "--reset-then-reuse-values")
            shop.release.wait()
            installation.diff()  # the values of the user, and the defaults of the chart
            installation.run_helm("rollback", NAME)
            shop.release.wait()


@contextlib.contextmanager
def overridden(shop: TwoLimits) -> Iterator[None]:
    """Turn all limits off for the block, by the override ConfigMap."""
    shop.release.kubectl.run("create", "configmap", OVERRIDE, "--from-literal=enforcement=Off")
    try:
        until(lambda: shop.programmed("False", "Off"))
        yield
    finally:
        shop.release.kubectl.run("delete", "configmap", OVERRIDE)


def test_a_cleanup_that_another_tool_starts_changes_nothing(shop: TwoLimits, tmp_path: Path) -> None:
    """Apply the release and the hook by kubectl, so that Helm does not own it."""
    with installed(shop, "kubectl", tmp_path) as installation:
        shop.apply()
        shop.wait()
        documents = yaml.safe_load_all(installation.template("--dry-run=server", "--is-upgrade"))
        hooks = [each for each in documents if each and each["metadata"]["name"] == f"{NAME}-cleanup"]
        kubectl = shop.release.kubectl
        kubectl.apply(*hooks)
        try:
            kubectl.wait("condition=Complete", f"job/{NAME}-cleanup", timeout_s=120)
            assert "owns no agent, so nothing is cleaned" in kubectl.run("logs", f"job/{NAME}-cleanup")
        finally:
            kubectl.delete(*hooks)
        shop.wait()
        assert kubectl.get("configmap", NAME)["data"] == {"enforcement": "Enforce", "cleanup": "false"}
