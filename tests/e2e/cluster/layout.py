"""The directory of one cluster while it runs. ``down`` removes it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
# A node sees its own in place of these, so nothing that it reads may be there.
_PRIVATE_TO_NODES = ("/var/lib", "/var/log", "/run", "/var/run", "/etc", "/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of the cluster called ``name``."""

    name: str
    root: Path

    @property
    def pki(self) -> Path:
        """Keys, certificates and kubeconfigs of the components."""
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        """One folder per box: log, pid and exit status of each component."""
        return self.root / "components"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for use from outside the cluster's namespaces."""
        return self.root / "kubeconfig"

    @property
    def programs(self) -> Path:
        """Kubectl and helm, to be put first in PATH."""
        return self.root / "bin"

    @property
    def record(self) -> Path:
        """What ``down`` must know besides names: see record.py."""
        return self.root / "record.json"

    @property
    def cgroup(self) -> str:
        """The cluster's cgroup in every hierarchy, relative to its root."""
        return f"tokenbucket-e2e.{self.name}"

    def beside(self, name: str) -> Layout:
        """Return the layout of another cluster, which can be up at the same time."""
        return Layout(f"{self.name}-{name}", self.root.with_name(f"{self.name}-{name}"))

    def node(self, name: str) -> Path:
        """Return what is a node's own."""
        return self.root / "nodes" / name


def layout() -> Layout:
    """Return the cluster of ``$TOKENBUCKET_E2E_NAME`` and ``$TOKENBUCKET_E2E_STATE``, or the default one.

    Raises ClusterError if the name could be another path, or if the nodes could not see the state.
    """
    name = os.environ.get("TOKENBUCKET_E2E_NAME", "default")
    if not _NAME.fullmatch(name):
        wanted = "lower case letters, digits and -, 32 at most"
        raise ClusterError("name", f"TOKENBUCKET_E2E_NAME is {name!r}; {wanted}")
    state = Path(os.environ.get("TOKENBUCKET_E2E_STATE", "/var/tmp/tokenbucket-e2e")).resolve()
    for private in _PRIVATE_TO_NODES:
        if state.is_relative_to(private):
            raise ClusterError("state", f"{state}: nodes have a {private} of their own, choose another place")
    return Layout(name, state / name)
