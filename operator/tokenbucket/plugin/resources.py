"""The kinds of objects that the plugin reads."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object of the API."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def __str__(self) -> str:
        """Return the name that ``kubectl auth can-i`` expects."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """Return the name of one object."""
        stem = self.plural.removesuffix("s")
        return f"{stem.removesuffix('ie')}y" if stem.endswith("ie") else stem

    def path(self, namespace: str = "", name: str | None = None) -> str:
        """Return the path of the objects of a namespace, of all namespaces, or of one object.

        Raises PluginError for a name that leads to another path.
        """
        parts = ["apis", self.group] if self.group else ["api"]
        parts.append(self.version)
        if self.namespaced and namespace:
            parts += ["namespaces", _segment("namespaces", namespace)]
        parts.append(self.plural)
        return "/" + "/".join(parts if name is None else [*parts, _segment(self.plural, name)])


def _segment(plural: str, name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "%" in name:
        raise PluginError(f"{plural} {name!r}: is not a name; correct it", PluginExit.USAGE)
    return quote(name, safe=":")


POLICIES = Kind("tokenbucket.dev", "v1alpha1", "tokenbucketpolicies")
REPORTS = Kind("tokenbucket.dev", "v1alpha1", "tokenbucketnodes", namespaced=False)
PODS = Kind("", "v1", "pods")
NAMESPACES = Kind("", "v1", "namespaces", namespaced=False)
NODES = Kind("", "v1", "nodes", namespaced=False)
SERVICES = Kind("", "v1", "services")
CONFIG_MAPS = Kind("", "v1", "configmaps")
WORKLOADS = {
    "Deployment": Kind("apps", "v1", "deployments"),
    "ReplicaSet": Kind("apps", "v1", "replicasets"),
    "StatefulSet": Kind("apps", "v1", "statefulsets"),
    "DaemonSet": Kind("apps", "v1", "daemonsets"),
    "Job": Kind("batch", "v1", "jobs"),
    "CronJob": Kind("batch", "v1", "cronjobs"),
}
"""Owners of pods, by the name of the kind in a document."""
EVENTS = Kind("", "v1", "events")
AGENTS = "app.kubernetes.io/part-of=tokenbucket,app.kubernetes.io/component=agent"
"""Selects the pods of agents."""
CHECK_LABEL = "tokenbucket.dev/check"
"""Of the pods of ``kubectl tokenbucket check``."""
