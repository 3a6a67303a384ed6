"""Run a program in a file system with runc, as a container runtime does, without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
_NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
_FILE_SYSTEMS = {
    "/proc": ("proc", ["nosuid", "noexec", "nodev"]),
    "/dev": ("tmpfs", ["nosuid", "strictatime", "mode=755"]),
    "/sys": ("sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    "/sys/fs/bpf": ("bpf", ["nosuid", "noexec", "nodev"]),  # an instance of its own: it ends with the sandbox
    "/tmp": ("tmpfs", ["nosuid", "nodev", "mode=1777"]),
}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The settings of a pod. The root file system is read-only, and no privilege can be gained."""

    root: Path
    environment: Sequence[str] = ()
    user: int = 0
    capabilities: Sequence[str] = ()
    memory_bytes: int = 320 * MIB
    folder: str = "/"
    shown: Mapping[str, Path] = field(default_factory=dict)
    """Folders of this machine, by where they are in the sandbox; read-only."""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, and leave nothing."""
        with tempfile.TemporaryDirectory(prefix="tokenbucket-sandbox-") as bundle:
            name = Path(bundle).name
            Path(bundle, "config.json").write_text(json.dumps(self._specification(name, command)))
            argv = ["runc", "--root", f"{bundle}/state", "run", "--bundle", bundle, name]
            return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def _specification(self, cgroup: str, command: Sequence[str]) -> dict[str, object]:
        sets = ("bounding", "effective", "permitted") if self.user == 0 else ("bounding",)
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "args": list(command),
                "env": list(self.environment),
                "cwd": self.folder,
                "capabilities": {kind: list(self.capabilities) for kind in sets},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": self._mounts(),
            "linux": {
                "cgroupsPath": f"/{cgroup}",
                "namespaces": [{"type": kind} for kind in _NAMESPACES],
                "resources": {"memory": {"limit": self.memory_bytes}},
            },
        }

    def _mounts(self) -> list[dict[str, object]]:
        fixed = [
            {"destination": where, "type": kind, "source": kind, "options": options}
            for where, (kind, options) in _FILE_SYSTEMS.items()
        ]
        shown = [
            {"destination": where, "type": "bind", "source": os.fspath(folder), "options": ["rbind", "ro"]}
            for where, folder in self.shown.items()
        ]
        return [*fixed, *shown]
