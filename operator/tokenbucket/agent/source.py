"""Where an agent's policies and pods come from: a folder of manifests. :mod:`.cluster` is the API server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from tokenbucket.core.status.node_status import DesiredInput
from tokenbucket.errors import Problem, SpecError
from tokenbucket.manifests.folder import Folder, FolderWatch, Manifests

log = logging.getLogger(__name__)


class Source(Protocol):
    """Polled by its file descriptor. The thread of the loop calls all methods."""

    def fileno(self) -> int:
        """Return the file descriptor that is readable when something may have changed."""

    def drain(self) -> None:
        """Read the changes that made it readable."""

    def reread(self) -> None:
        """Discard all remembered state, before a full run."""

    def snapshot(self) -> DesiredInput | None:
        """Return the declared state. ``None`` while it is unknown: the agent then changes nothing."""

    def close(self) -> None:
        """Close the source."""


class FolderSource:
    """Policies and pods of a folder. Raises SpecError if the folder does not exist."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SpecError(str(path), (Problem("", None, "is not a folder; set --manifests to a folder"),))
        # Watch the folder before reading it, so that no change is missed.
        self._watch = FolderWatch(path)
        self._folder = Folder(path)
        self._manifests = Manifests()
        self.reread()

    def __str__(self) -> str:
        return str(self._folder.path)

    def fileno(self) -> int:
        """Return the file descriptor that is readable when a file has changed."""
        return self._watch.fileno()

    def drain(self) -> None:
        """Read the changes."""
        self._watch.drain()
        self.reread()

    def reread(self) -> None:
        """Read the folder. If that fails, keep the previous state."""
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

    def snapshot(self) -> DesiredInput:
        """Return the declared state of the folder."""
        return DesiredInput(self._manifests.policies, self._manifests.pods)

    def close(self) -> None:
        """Stop the watch."""
        self._watch.close()
