"""``kubectl tokenbucket`` as users run it, and its answers to ``explain pod``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.kubectl import Kubectl
from tests.e2e.release import Release, until
from tokenbucket.plugin.exit_codes import PluginExit

Result = subprocess.CompletedProcess[str]
Explained = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plugin:
    """Runs a command by kubectl, as in a terminal of 80 columns."""

    admin: Kubectl
    folder: Path

    def __call__(self, *words: str, stdin: str = "", plugin: str = "tokenbucket") -> Result:
        """Return the result of ``kubectl plugin words...``."""
        program = Path(self.admin.program)
        path = ":".join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
        config = {"KUBECONFIG": str(self.admin.kubeconfig), "HOME": str(self.folder)}
        return subprocess.run(
            [program.name, *([plugin] if plugin else []), *words],
            env={"PATH": path, "COLUMNS": "80", **config},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )


@dataclass(frozen=True, slots=True)
class Explanations:
    """Explains the pods of one namespace."""

    plugin: Plugin
    namespace: str

    def of(self, name: str) -> Explained:
        """Return the answer for a pod, with its causes and the exit status."""
        done = self.plugin("explain", "pod", name, "-n", self.namespace, "-o", "json")
        found: Explained = json.loads(done.stdout or "{}")
        return found | {"status": done.returncode, "errors": done.stderr}

    def shows(self, name: str, cause: str, status: PluginExit) -> Explained:
        """Wait until the causes of a pod have the expected one, and the exit status. Return the answer."""
        found: Explained = {}

        def reached() -> bool:
            nonlocal found
            found = self.of(name)
            codes = [each["code"] for each in found.get("causes", [])]
            return cause in codes and found["status"] == status

        until(reached, lambda: f"{name}: {json.dumps(found, indent=1)}", timeout_s=120)
        return found


def interface(release: Release, node: str, name: str) -> str:
    """Return the host-side interface of a limited pod."""
    agent = release.agent(node)

    def found() -> str:
        shown = json.loads(release.kubectl.exec(agent, "tokenbucket", "status", "-o", "json"))
        mine = (each for each in shown["limits"] if each.get("pod") == name)
        return next((str(hook["interface"]) for each in mine for hook in each["hooks"]), "")

    return until(found, lambda: f"{name} has no limit", timeout_s=120)
