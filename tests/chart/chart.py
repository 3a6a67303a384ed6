"""The chart as helm renders it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.versions import versions
from tests.chart.cluster_stub import cluster_stub

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "charts" / "tokenbucket"
NAMESPACE = "tokenbucket-system"

Document = dict[str, Any]
Values = Mapping[str, Any]

EVERYTHING: Values = {
    "agent": {
        "readinessGates": True,
        "bandwidthAnnotations": True,
        "removeTaint": True,
        "canary": {"enabled": True},
        "metrics": {"enabled": True},
    },
    "controller": {"networkPolicy": {"enabled": True}, "metrics": {"enabled": True}},
    "rbac": {"aggregateToEdit": True},
    "admission": {"warnings": True},
    "flowControl": {"enabled": True},
    "metricsTLS": {"secret": "metrics-certificate"},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}
"""Everything on that can be switched on."""


class ChartError(Exception):
    """Helm rejects the values. The message is that of helm."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects that helm would send to the API server, with hooks."""

    documents: tuple[Document, ...]

    def of(self, kind: str) -> list[Document]:
        return [each for each in self.documents if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Document:
        [found] = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    def names(self) -> set[str]:
        return {f"{each['kind']}/{each['metadata']['name']}" for each in self.documents}

    def pods(self) -> dict[str, Document]:
        """Return the spec of every pod, by the name of its owner."""
        return {each["metadata"]["name"]: pod for each in self.documents if (pod := pod_of(each))}


def pod_of(document: Document) -> Document | None:
    if document["kind"] == "Pod":
        return document["spec"]
    return document.get("spec", {}).get("template", {}).get("spec")


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart, rendered by helm without a cluster."""

    helm: Path

    def render(self, values: Values | None = None, release: str = "tokenbucket") -> Manifests:
        """Return the objects of 'helm install', with hooks. Raises ChartError if helm rejects values."""
        # One for each call: tests of other rungs move this process to another network namespace.
        with cluster_stub() as api:
            return self._template(values, release, "--dry-run=server", f"--kube-apiserver={api}")

    def template(self, values: Values | None = None) -> Manifests:
        """Return the objects of 'helm template', which other tools apply."""
        return self._template(values, "tokenbucket")

    def kustomize(self, program: Path, folder: Path, values: Values) -> Manifests:
        """Return the objects of 'kustomize build', which runs helm. Writes into the folder."""
        write_kustomization(folder, values)
        words = ["build", folder, "--enable-helm", f"--helm-command={self.helm}"]
        done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
        return Manifests(tuple(filter(None, yaml.safe_load_all(done.stdout))))

    def _template(self, values: Values | None, release: str, *words: str) -> Manifests:
        text = self.run("template", release, FOLDER, "--namespace", NAMESPACE, *words, values=values)
        return Manifests(tuple(filter(None, yaml.safe_load_all(text))))

    def run(self, *words: str | Path, values: Values | None = None) -> str:
        """Run ``helm words...`` for the Kubernetes version of the tests."""
        given = [f"--kube-version={versions().kubernetes}", "--values=-"]
        done = subprocess.run(
            [self.helm, *words, *given],
            input=json.dumps(values or {}),
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "KUBECONFIG": "/dev/null"},
        )
        if done.returncode:
            raise ChartError(done.stderr + done.stdout)
        return done.stdout


def write_kustomization(folder: Path, values: Values) -> None:
    """Write a kustomization of the chart. kustomize reads only files below its own."""
    shutil.copytree(FOLDER, folder / "charts" / FOLDER.name, dirs_exist_ok=True)
    chart = {
        "name": FOLDER.name,
        "releaseName": "tokenbucket",
        "namespace": NAMESPACE,
        "kubeVersion": versions().kubernetes,
        "valuesInline": values,
    }
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "helmGlobals": {"chartHome": "charts"},
        "helmCharts": [chart],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))


def merged(values: Iterable[Values]) -> Document:
    """Merge values over values."""
    result: Document = {}
    for each in values:
        for key, value in each.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged([result[key], value]) if both else value
    return result
