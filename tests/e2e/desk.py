"""A folder and a shell in which the commands of a page run as written, with the few changes listed here."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.command import run
from cluster.versions import versions
from tests.documentation.blocks import ROOT, Block
from tests.e2e.release import NAMESPACE, Release, image_values

_TITLE = re.compile(r"# ([\w.-]+\.yaml)\n")
_IMAGE = re.compile(r"ghcr\.io/tokenbucket/tokenbucket:[\w.-]+")
_NODE = re.compile(r"(?<= )NODE\b|\bworker-\d\b")


@dataclass(frozen=True, slots=True)
class Desk:
    """The place of one reader."""

    folder: Path
    release: Release
    node: str
    """Takes the place of NODE and worker-1."""

    def prepare(self) -> None:
        """Lay out what a checkout has, with the image of the tests."""
        (self.folder / "charts").symlink_to(ROOT / "charts")
        examples = self.folder / "examples"
        shutil.copytree(ROOT / "examples", examples)
        for file in examples.glob("*.yaml"):
            file.write_text(_IMAGE.sub(self._image, file.read_text()))

    def run(self, page: Iterable[Block]) -> None:
        """Run the commands of the blocks in one shell. Raises ClusterError with the command that failed."""
        script = [self._node_shell()]
        for block in page:
            named = _TITLE.match(block.text)
            if block.language == "sh":
                script.append(self._changed(block.text))
            elif named:
                (self.folder / named[1]).write_text(block.text)
        programs = [Path(self.release.admin.program).parent, Path(sys.executable).parent]
        path = ":".join([*map(str, programs), os.environ["PATH"]])
        env = {"PATH": path, "KUBECONFIG": str(self.release.admin.kubeconfig), "HOME": str(self.folder)}
        argv = ["bash", "-euxo", "pipefail", "-c", "\n".join(script)]
        run(argv, part="commands of the page", env=env, cwd=self.folder, timeout_s=900)

    @property
    def _image(self) -> str:
        values = image_values()
        return f"{values['repository']}:{values['tag']}"

    def _changed(self, commands: str) -> str:
        sets = " ".join(f"--set image.{name}={value}" for name, value in image_values().items())
        commands = commands.replace("charts/tokenbucket ", f"charts/tokenbucket {sets} ")
        commands = commands.replace("debian:trixie-slim", versions().debian.tag.split("/")[-1])
        return _NODE.sub(self.node, commands)

    def _node_shell(self) -> str:
        """Return the function tokenbucket, which runs commands for a node in the pod of its agent."""
        there = f"-l app.kubernetes.io/component=agent --field-selector spec.nodeName={self.node}"
        agent = f"$(kubectl -n {NAMESPACE} get pod -o name {there})"
        return f'tokenbucket() {{ kubectl -n {NAMESPACE} exec "{agent}" -c agent -- tokenbucket "$@"; }}'
