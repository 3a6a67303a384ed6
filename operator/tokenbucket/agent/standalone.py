"""The agent without a cluster: a folder of manifests in place of an API server."""

from __future__ import annotations

import logging
from pathlib import Path

from tokenbucket.agent.source import DesiredInput, Outcome
from tokenbucket.errors import Problem, SpecError
from tokenbucket.manifests.folder import Folder, FolderWatch, Manifests

log = logging.getLogger(__name__)


class FolderSource:
    """Policies and pods of a folder. Raises SpecError when there is no such folder."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SpecError(str(path), (Problem("", None, "is not a folder; --manifests names one"),))
        # Watched before it is read, so that nothing falls between.
        self._watch = FolderWatch(path)
        self._folder = Folder(path)
        self._manifests = Manifests()
        self.reread()

    def __str__(self) -> str:
        return str(self._folder.path)

    def fileno(self) -> int:
        """Readable when a file has changed."""
        return self._watch.fileno()

    def drain(self) -> None:
        """Read the changes."""
        self._watch.drain()
        self.reread()

    def reread(self) -> None:
        """Read the folder; if that fails, keep what it declared before."""
        try:
            self._watch.renew()
            manifests = self._folder.read()
        except OSError as error:
            log.warning("folder not read", extra={"folder": str(self._folder.path), "error": error.strerror})
            return
        for message in manifests.errors:
            if message not in self._manifests.errors:
                log.error("invalid document", extra={"error": message})
        self._manifests = manifests

    def wishes(self) -> DesiredInput:
        """Return what the folder declares."""
        return DesiredInput(self._manifests.policies, self._manifests.pods)

    def passed(self, wishes: DesiredInput, outcome: Outcome) -> None:
        """Nobody here is told; the log is."""

    def cleaned(self, wishes: DesiredInput) -> None:
        """Never asked for here: that is ``tokenbucket detach --all``."""

    def close(self) -> None:
        """Stop the watch."""
        self._watch.close()
