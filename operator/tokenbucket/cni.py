"""Read the CNI result cache, the earliest source of the addresses of a pod.

The CNI library of the container runtime writes one file for each attachment of a sandbox when its network
exists, before any container of the pod starts. It removes the file with the sandbox:
https://github.com/containernetworking/cni/blob/main/libcni/api.go (``cachedInfo``).

Files of lost sandboxes stay, any number of them, and the times of files prove nothing: clocks step, and
backups restore files. :mod:`tokenbucket.core.planning.identity` weighs the results against other evidence.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path, PurePath
from typing import Any

from inotify_simple import Event, INotify, flags

from tokenbucket.core.api.pod import PodId, Sandbox

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
_CHANGES = (flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE) | (
    flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
)
_LOST = flags.IGNORED | flags.UNMOUNT | flags.DELETE_SELF | flags.MOVE_SELF
_KIND = "cniCacheV1"
_LARGEST_BYTES = 1 << 20
_NAMED = {PurePath("/run/netns"), PurePath("/var/run/netns")}


@dataclass(frozen=True, slots=True)
class _Attachment:
    """One file: an attachment of a sandbox to a network."""

    pod: PodId
    sandbox: str
    addresses: frozenset[Address]
    namespaces: frozenset[str]


class CniResults:
    """The cache of one node. Polled by its file descriptor. A change costs the reading of one file.

    The cache is optional. If the system has no inotify watch left (all processes of root share the limit),
    there are no events: each refresh reads new files, and :meth:`reread` reads changed ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._poll = select.epoll()  # exists also without inotify
        self._inotify: INotify | None = None
        self._changed: set[str] = set()
        """Names of files that events were about."""
        self._list_again = True
        """Whether files may have been added or removed without an event."""
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, _Attachment] = {}
        self._by_pod: dict[PodId, set[str]] = {}
        self._logged: set[tuple[str, str]] = set()

    def fileno(self) -> int:
        """Return the file descriptor that is readable when a file has changed."""
        return self._poll.fileno()

    def drain(self) -> None:
        """Read all queued events."""
        for event in self._inotify.read(timeout=0) if self._inotify else ():
            self._record(event)

    def close(self) -> None:
        """Stop the watch."""
        self._poll.close()
        if self._inotify:
            self._inotify.close()

    @property
    def pods(self) -> Collection[PodId]:
        """The pods that have results, as of the last refresh."""
        return self._by_pod.keys()

    def of(self, pod: PodId) -> tuple[Sandbox, ...]:
        """Return the sandboxes of a pod, as of the last refresh."""
        sandboxes: dict[str, list[_Attachment]] = {}
        for name in self._by_pod.get(pod, ()):
            sandboxes.setdefault(self._files[name].sandbox, []).append(self._files[name])
        return tuple(_sandbox(sandboxes[each]) for each in sorted(sandboxes))

    def reread(self) -> None:
        """Let the next refresh look for changes that caused no event."""
        self._list_again = True
        if not self._inotify:
            self._changed.update(self._stamps)

    def refresh(self) -> None:
        """Read the changed files."""
        self._watch()
        if self._list_again or not self._inotify:
            self._list()
        for name in tuple(self._changed):
            self._read(name)
            self._changed.discard(name)

    def _record(self, event: Event) -> None:
        if event.mask & _LOST and self._inotify:
            self._inotify.close()
            self._inotify = None
        if event.mask & (_LOST | flags.Q_OVERFLOW):
            self._list_again = True
            self._changed.update(self._stamps)
        elif event.name:
            self._stamps.pop(event.name, None)
            self._changed.add(event.name)

    def _watch(self) -> None:
        if self._inotify:
            return
        try:
            self._inotify = _watch_on(self.folder)
            self._poll.register(self._inotify, select.EPOLLIN)
            self.reread()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._log_once("CNI result cache not watched", error)

    def _log_once(self, event: str, error: OSError) -> None:
        """Log each cause once."""
        cause = event, error.strerror or ""
        if cause not in self._logged:
            log.warning(event, extra={"folder": str(self.folder), "error": error.strerror})
        self._logged.add(cause)

    def _list(self) -> None:
        try:
            present = {path.name for path in self.folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            present = set()
        except OSError as error:
            self._log_once("CNI result cache not read", error)
            return
        self._list_again = False
        # A file without a result may have been read while it was written.
        self._changed |= present - self._files.keys() | self._stamps.keys() - present

    def _read(self, name: str) -> None:
        """Read a file unless it is unchanged. A file that is no complete result is no evidence."""
        try:
            stamp, text = _content(self.folder / name, self._stamps.get(name))
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._log_once("CNI result not read", error)
                return
            stamp, text = None, b""
        if text is None:
            return
        self._forget(name)
        if stamp is not None:
            self._stamps[name] = stamp
        if attachment := parse(text):
            self._files[name] = attachment
            self._by_pod.setdefault(attachment.pod, set()).add(name)

    def _forget(self, name: str) -> None:
        self._stamps.pop(name, None)
        if before := self._files.pop(name, None):
            self._by_pod[before.pod].discard(name)
            if not self._by_pod[before.pod]:
                del self._by_pod[before.pod]


def namespaces_of(folder: Path, pod: str) -> set[str]:
    """Return the names of the namespaces in the results of a pod, given as NAME or NAMESPACE/NAME.

    A result can be left over from a pod that has ended, and its namespace has ended too.
    """
    results = CniResults(folder)
    try:
        results.refresh()
        meant = (known for known in results.pods if pod in {known.name, str(known)})
        return {sandbox.namespace for known in meant for sandbox in results.of(known) if sandbox.namespace}
    finally:
        results.close()


def _sandbox(attachments: list[_Attachment]) -> Sandbox:
    namespaces = frozenset().union(*(each.namespaces for each in attachments))
    addresses = frozenset().union(*(each.addresses for each in attachments))
    return Sandbox(addresses, min(namespaces) if len(namespaces) == 1 else "")


def _content(path: Path, known: tuple[int, ...] | None) -> tuple[tuple[int, ...], bytes | None]:
    """Return the stamp of a file, and its content unless the stamp is known. Blocks on no named pipe."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == known:
            return stamp, None
        whole = stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_BYTES
        return stamp, file.read(_LARGEST_BYTES) if whole else b""


def _watch_on(folder: Path) -> INotify:
    """Return a watch on a folder. Raises OSError."""
    inotify = INotify(nonblocking=True)
    try:
        inotify.add_watch(str(folder), _CHANGES)
    except OSError:
        inotify.close()
        raise
    return inotify


def parse(text: bytes) -> _Attachment | None:
    """Return the content of a file; ``None`` if it is not a result, or not complete."""
    try:
        content = json.loads(text)
        if content["kind"] != _KIND:
            return None
        arguments = dict(content["cniArgs"])
        pod = PodId(
            _text(arguments["K8S_POD_NAMESPACE"]),
            _text(arguments["K8S_POD_NAME"]),
            _text(arguments.get("K8S_POD_UID", "")),
        )
        result = content["result"]
        named = frozenset(_namespaces(content, result))
        return _Attachment(pod, _text(content["containerId"]), _addresses(result), named)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _addresses(result: Mapping[str, Any]) -> frozenset[Address]:
    """Return the addresses of a result of version 0.3.0 or later, without those of the loopback plugin."""
    found = (ip_interface(_text(entry["address"])).ip for entry in result.get("ips") or [])
    return frozenset(ip for ip in found if not ip.is_loopback and not ip.is_link_local)


def _namespaces(content: Mapping[str, Any], result: Mapping[str, Any]) -> set[str]:
    """Return the names in /run/netns of the namespaces that a result names."""
    paths = [content.get("netns"), *(each.get("sandbox") for each in result.get("interfaces") or [])]
    named = (PurePath(path) for path in paths if isinstance(path, str))
    return {path.name for path in named if path.parent in _NAMED and path.name not in {"", ".."}}
