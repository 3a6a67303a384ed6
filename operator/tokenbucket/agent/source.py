"""Define where an agent's policies and pods come from, and read them from a folder of manifests.

:mod:`tokenbucket.agent.cluster` reads them from the API server. In a folder, an invalid document is reported,
and the other documents apply. If a valid document becomes invalid, its last valid version applies until the
process ends, so that a typing error does not remove a limit.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from inotify_simple import INotify, flags

from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Policy
from tokenbucket.core.status.node_status import DesiredInput
from tokenbucket.errors import Problem, SpecError
from tokenbucket.manifests import MAX_BYTES, Manifests, parse_text

log = logging.getLogger(__name__)

_SUFFIXES = {".yaml", ".yml", ".json"}
_CHANGES = (flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE) | (
    flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF
)

_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM}
"""Errors of inotify if the system has no instance or watch left."""


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

    def __init__(self, path: Path, *, annotations: bool = False) -> None:
        if not path.is_dir():
            raise SpecError(str(path), (Problem("", None, "is not a folder; set --manifests to a folder"),))
        # Watch the folder before reading it, so that no change is missed.
        self._watch = FolderWatch(path)
        self._folder = Folder(path, annotations=annotations)
        self._manifests = Manifests()
        self._received_at: float | None = None
        self.reread()

    def __str__(self) -> str:
        return str(self._folder.path)

    def fileno(self) -> int:
        """Return the file descriptor that is readable when a file has changed."""
        return self._watch.fileno()

    def drain(self) -> None:
        """Read the changes."""
        self._watch.drain()
        if self._received_at is None:
            self._received_at = time.monotonic()
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
        received_at, self._received_at = self._received_at, None
        return DesiredInput(self._manifests.policies, self._manifests.pods, received_at=received_at)

    def close(self) -> None:
        """Stop the watch."""
        self._watch.close()


@dataclass(frozen=True, slots=True)
class _Read:
    stamp: tuple[int, ...]
    manifests: Manifests


class Folder:
    """A folder of manifests. Only changed files are read again."""

    def __init__(self, path: Path, *, annotations: bool = False) -> None:
        """Create a folder. ``annotations`` is whether annotations of pods declare limits."""
        self.path = path
        self._annotations = annotations
        self._files: dict[Path, _Read] = {}

    def read(self) -> Manifests:
        """Return all documents of the folder. Raises OSError if the folder cannot be read."""
        present = sorted(path for path in self.path.iterdir() if _is_manifest(path))
        self._files = {path: read for path, read in self._files.items() if path in present}
        for path in present:
            self._refresh(path)
        return _merged(self._files)

    def _refresh(self, path: Path) -> None:
        before = self._files.get(path)
        stamp: tuple[int, ...] = ()
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if before and before.stamp == stamp:
                return
            manifests = parse_text(_content(path), str(path), annotations=self._annotations)
        except FileNotFoundError:
            self._files.pop(path, None)
            return
        except OSError as error:
            manifests = Manifests(errors=(f"{path}: {error.strerror}",), invalid=None)
        self._files[path] = _Read(stamp, _with_last_good(manifests, before))


def _content(path: Path) -> bytes:
    """Return the content, cut one byte above the maximum. Does not block on a named pipe."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return file.read(MAX_BYTES + 1)


def _with_last_good(now: Manifests, before: _Read | None) -> Manifests:
    """Return the documents of a file, and for each invalid document its last valid version."""
    if before is None or not now.errors:
        return now
    policies = {str(policy): policy for policy in before.manifests.policies if _is_invalid(now, str(policy))}
    pods = {str(pod.id): pod for pod in before.manifests.pods if _is_invalid(now, str(pod.id))}
    policies |= {str(policy): policy for policy in now.policies}
    pods |= {str(pod.id): pod for pod in now.pods}
    return replace(now, policies=tuple(policies.values()), pods=tuple(pods.values()))


def _is_invalid(manifests: Manifests, name: str) -> bool:
    return manifests.invalid is None or name in manifests.invalid


def _is_manifest(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".")


def _merged(files: dict[Path, _Read]) -> Manifests:
    """Return the documents of all files. If two objects have the same name, the second one is an error."""
    policies: dict[str, Policy] = {}
    pods: dict[str, Pod] = {}
    errors: list[str] = []
    for path in sorted(files):
        manifests = files[path].manifests
        errors += manifests.errors
        for policy in manifests.policies:
            if policies.setdefault(str(policy), policy) is not policy:
                errors.append(f"{path}: TokenBucketPolicy {policy} is a duplicate; rename or remove it")
        for pod in manifests.pods:
            if pods.setdefault(str(pod.id), pod) is not pod:
                errors.append(f"{path}: Pod {pod.id} is a duplicate; rename or remove it")
    return Manifests(tuple(policies.values()), tuple(pods.values()), tuple(errors))


class FolderWatch:
    """An inotify watch on one folder, to be polled by its file descriptor.

    Without a free inotify instance there are no events, and each renewal tries again.
    """

    def __init__(self, path: Path) -> None:
        """Start the watch. Raises OSError if the folder does not exist."""
        self._path = path
        self._poll = select.epoll()  # exists also without inotify
        self._inotify: INotify | None = None
        self._logged = False
        self.renew()

    def fileno(self) -> int:
        """Return the file descriptor that is readable when something has changed."""
        return self._poll.fileno()

    def renew(self) -> None:
        """Watch the folder that has this name now, which may have been replaced. Raises OSError."""
        try:
            if not self._inotify:
                self._inotify = INotify(nonblocking=True)
                self._poll.register(self._inotify, select.EPOLLIN)
            self._inotify.add_watch(str(self._path), _CHANGES)
        except OSError as error:
            if error.errno not in _USED_UP:
                raise
            if not self._logged:
                fields = {"folder": str(self._path), "error": error.strerror, "interval_s": 60}
                log.warning("folder not watched; it is read at intervals", extra=fields)
            self._logged = True

    def drain(self) -> None:
        """Discard all queued events."""
        if self._inotify:
            self._inotify.read(timeout=0)

    def close(self) -> None:
        """Stop the watch."""
        self._poll.close()
        if self._inotify:
            self._inotify.close()
