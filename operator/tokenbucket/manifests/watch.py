"""Tells when a folder may have changed. What changed is for :mod:`tokenbucket.manifests.folder` to see."""

from __future__ import annotations

from pathlib import Path

from inotify_simple import INotify, flags

_CHANGES = (
    flags.CREATE
    | flags.CLOSE_WRITE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.ATTRIB
    | flags.DELETE_SELF
    | flags.MOVE_SELF
)


class FolderWatch:
    """An inotify watch on one folder, to be polled by its file descriptor."""

    def __init__(self, path: Path) -> None:
        """Start the watch. Raises OSError if the folder does not exist."""
        self._path = path
        self._inotify = INotify(nonblocking=True)
        self.renew()

    def fileno(self) -> int:
        """File descriptor that is readable when something has changed."""
        return int(self._inotify.fileno())

    def renew(self) -> None:
        """Watch the folder that has this name now, which may be a new one. Raises OSError."""
        self._inotify.add_watch(str(self._path), _CHANGES)

    def drain(self) -> None:
        """Discard all queued events."""
        self._inotify.read(timeout=0)

    def close(self) -> None:
        """Stop the watch."""
        self._inotify.close()
