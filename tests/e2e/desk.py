"""A folder and a shell in which the examples of a page run as written, with the few changes listed here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.client import client_image
from cluster.command import run
from cluster.versions import versions
from tests.documentation.blocks import ROOT, Block
from tests.documentation.crds import KINDS
from tests.documentation.sessions import Exchange, commands_of, missing_lines
from tests.e2e.release import AGENTS, NAME, NAMESPACE, Release, image_values, until, values_of_tests

_TITLE = re.compile(r"# ([\w.-]+\.yaml)\n")
_IMAGE = re.compile(r"ghcr\.io/tokenbucket/tokenbucket:[\w.-]+")
_CHART = "charts/tokenbucket"
_SPEC = KINDS["TokenBucketPolicy"].schema["properties"]["spec"]["properties"].keys()
_NAMES = (
    (re.compile(r"(?<=explain pod )NAME\b"), "web-0"),
    (re.compile(r"(?<=tbp )NAME\b"), "web"),
    (re.compile(r"(?<=--namespace )NAMESPACE\b"), "shop"),
    (re.compile(r"(?<=pod )POD\b"), "web"),
)
_NODE = re.compile(r"(?<=[ /])(?<!s/)NODE\b|(?<=label node )NAME\b|\bworker-\d\b|\bnode-ptp\b")


@dataclass(frozen=True, slots=True)
class Desk:
    """The place of one reader."""

    folder: Path
    release: Release
    node: str
    """Takes the place of the node that a page names."""

    def prepare(self) -> None:
        """Lay out what a checkout has, with the image of the tests."""
        (self.folder / "charts").symlink_to(ROOT / "charts")
        examples = self.folder / "examples"
        shutil.copytree(ROOT / "examples", examples)
        for file in examples.glob("*.yaml"):
            file.write_text(_IMAGE.sub(self._image, file.read_text()))

    def add(self, files: Mapping[str, str]) -> None:
        """Write files of the reader."""
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def run(self, page: Iterable[Block]) -> None:
        """Run the commands of the blocks in one shell, and compare the output of the sessions among them.

        A session ends the shell. Raises ClusterError with the command that failed, or AssertionError with
        the lines that are missing.
        """
        script: list[str] = []
        for block in page:
            script += self._script(block)
            exchanges = commands_of(block.text) if block.language in {"text", "console"} else []
            if exchanges:
                self._shell(script)
                script = []
            for exchange in exchanges:
                self._compare(exchange)
        self._shell(script)

    def _shell(self, script: list[str]) -> None:
        if script:
            argv = ["bash", "-euxo", "pipefail", "-c", "\n".join([self._node_shell(), *script])]
            run(argv, part="commands of the page", env=self._env(), cwd=self.folder, timeout_s=900)

    def _script(self, block: Block) -> Iterator[str]:
        """Yield the commands of a block, or those with which a reader uses it."""
        text = self._changed(block.text)
        if block.language == "sh":
            yield text
        elif block.language == "yaml":
            yield from self._of_manifest(text)
        elif block.language == "json" and '"uids"' in text:
            yield f"kubectl -n shop get pod web-0 -o json >pod.json; {_REQUEST}"

    def _of_manifest(self, text: str) -> Iterator[str]:
        titled = _TITLE.match(text)
        first = next(yaml.safe_load_all(text))
        if titled:
            (self.folder / titled[1]).write_text(text)
        elif "kind" in first:
            yield _with("kubectl apply --filename -", text)
        elif first.keys() <= _SPEC:
            spec = {"podSelector": {}, **first}
            metadata = {"name": "part-of-a-spec", "namespace": "default"}
            kind = {"apiVersion": "tokenbucket.dev/v1alpha1", "kind": "TokenBucketPolicy"}
            document = {**kind, "metadata": metadata, "spec": spec}
            yield _with("kubectl apply --dry-run=server --filename -", json.dumps(document))
        else:
            chart = self._changed(f"{NAME} {_CHART} --namespace {NAMESPACE}")
            yield _with(f"helm upgrade {chart} --reset-then-reuse-values --values -", text)

    def _compare(self, exchange: Exchange) -> None:
        """Wait until a command prints the lines. Only a command without lines must succeed."""
        script = f"{self._node_shell()}\n{self._changed(exchange.command)}"
        expected = Exchange(exchange.command, tuple(map(self._changed, exchange.output)))
        printed = ""

        def missing() -> list[str]:
            nonlocal printed
            done = subprocess.run(
                ["bash", "-c", script],
                env=self._env(),
                cwd=self.folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=120,
            )
            printed = done.stdout
            failed = [f"exit status {done.returncode}"] if done.returncode and not expected.output else []
            return failed + missing_lines(expected, printed)

        until(
            lambda: not missing(),
            lambda: f"$ {exchange.command}\n{printed}\nmissing: {missing()}",
            timeout_s=90,
        )

    def _env(self) -> dict[str, str]:
        programs = [Path(self.release.admin.program).parent, Path(sys.executable).parent]
        path = ":".join([*map(str, programs), os.environ["PATH"]])
        return {
            "PATH": path,
            "KUBECONFIG": str(self.release.admin.kubeconfig),
            "HOME": str(self.folder),
            "COLUMNS": "80",
        }

    @property
    def _image(self) -> str:
        values = image_values()
        return f"{values['repository']}:{values['tag']}"

    def _changed(self, text: str) -> str:
        sets = " ".join(f"--set {name}={value}" for name, value in values_of_tests().items())
        text = text.replace(f"{_CHART} ", f"{_CHART} {sets} ")
        text = text.replace("debian:trixie-slim", versions().debian.tag.split("/")[-1])
        text = text.replace("image: nginx", f"image: {client_image()['image']}")
        text = text.replace("=VERSION", f"={image_values()['tag']}")
        if " AGENT " in text:
            [agent, *_] = self.release.kubectl.items("pods", f"--selector={AGENTS}")
            text = text.replace(" AGENT ", f" {agent['metadata']['name']} ")
        for pattern, name in _NAMES:
            text = pattern.sub(name, text)
        return _NODE.sub(self.node, text)

    def _node_shell(self) -> str:
        """Return the function tokenbucket, which runs commands for a node in the pod of its agent."""
        there = f"-l app.kubernetes.io/component=agent --field-selector spec.nodeName={self.node}"
        agent = f"$(kubectl -n {NAMESPACE} get pod -o name {there})"
        return f'tokenbucket() {{ kubectl -n {NAMESPACE} exec "{agent}" -c agent -- tokenbucket "$@"; }}'


_REQUEST = """python3 -c 'import json
uid = json.load(open("pod.json"))["metadata"]["uid"]
json.dump({"uids": [uid], "peers": 5}, open("request.json", "w"))'"""


def _with(command: str, text: str) -> str:
    return f"{command} <<'END'\n{text}\nEND"
