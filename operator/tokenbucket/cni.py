"""Read the CNI result cache, the earliest source of the addresses of a pod.

The CNI library of the container runtime writes one file for each attachment of a sandbox when its network
exists, before any container of the pod starts. It removes the file with the sandbox:
https://github.com/containernetworking/cni/blob/main/libcni/api.go (``cachedInfo``).
"""

from __future__ import annotations

import json
import logging
import select
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import Any

from inotify_simple import INotify, flags

from tokenbucket.core.api.pod import PodId

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
_CHANGES = flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE
_KIND = "cniCacheV1"
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Attachment:
    """One file: an attachment of a sandbox to a network."""

    pod: PodId
    sandbox: str
    addresses: frozenset[Address]
    written_ns: int


class CniResults:
    """The cache of one node. Only changed files are read again. Polled by its file descriptor.

    The cache is optional. If the system has no inotify watch left (all processes of root share the limit),
    there are no events, and each read tries again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._poll = select.epoll()  # exists also without inotify
        self._inotify: INotify | None = None
        self._files: dict[str, tuple[tuple[int, ...], _Attachment | None]] = {}
        self._logged: set[tuple[str, str]] = set()

    def fileno(self) -> int:
        """Return the file descriptor that is readable when a file has changed."""
        return self._poll.fileno()

    def drain(self) -> None:
        """Discard all queued events."""
        if self._inotify:
            self._inotify.read(timeout=0)

    def close(self) -> None:
        """Stop the watch."""
        self._poll.close()
        if self._inotify:
            self._inotify.close()

    def read(self) -> Mapping[PodId, frozenset[Address]]:
        """Return the addresses of the newest sandbox of each pod. Empty if there is no cache yet."""
        self._watch()
        attachments = [attachment for attachment in self._read_files() if attachment]
        newest: dict[PodId, _Attachment] = {}
        for attachment in sorted(attachments, key=lambda attachment: attachment.written_ns):
            newest[attachment.pod] = attachment
        found: dict[PodId, frozenset[Address]] = {}
        for attachment in attachments:
            if attachment.sandbox == newest[attachment.pod].sandbox:
                found[attachment.pod] = found.get(attachment.pod, frozenset()) | attachment.addresses
        return found

    def _watch(self) -> None:
        if self._inotify:
            return
        try:
            self._inotify = _watch_on(self.folder)
            self._poll.register(self._inotify, select.EPOLLIN)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._log_once("CNI result cache not watched", error)

    def _log_once(self, event: str, error: OSError) -> None:
        """Log each cause once."""
        cause = event, error.strerror or ""
        if cause not in self._logged:
            log.warning(event, extra={"folder": str(self.folder), "error": error.strerror})
        self._logged.add(cause)

    def _read_files(self) -> Iterator[_Attachment | None]:
        try:
            present = {path.name: path for path in self.folder.iterdir()}
        except FileNotFoundError:
            present = {}
        except OSError as error:
            self._log_once("CNI result cache not read", error)
            yield from (known for _, known in self._files.values())
            return
        self._files = {name: read for name, read in self._files.items() if name in present}
        for name, path in present.items():
            yield self._read_file(name, path)

    def _read_file(self, name: str, path: Path) -> _Attachment | None:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._files.get(name)
            if known and known[0] == stamp:
                return known[1]
            text = path.read_bytes() if status.st_size <= _LARGEST_BYTES else b""
        except OSError:  # it has been removed in the meantime
            return None
        attachment = _parse(text, status.st_mtime_ns)
        self._files[name] = (stamp, attachment)
        return attachment


def _watch_on(folder: Path) -> INotify:
    """Return a watch on a folder. Raises OSError."""
    inotify = INotify(nonblocking=True)
    try:
        inotify.add_watch(str(folder), _CHANGES)
    except OSError:
        inotify.close()
        raise
    return inotify


def _parse(text: bytes, written_ns: int) -> _Attachment | None:
    """Return the content of a file; ``None`` if it is not a result, or not complete yet."""
    try:
        content = json.loads(text)
        if content.get("kind") != _KIND:
            return None
        arguments = dict(content["cniArgs"])
        pod = PodId(
            arguments["K8S_POD_NAMESPACE"], arguments["K8S_POD_NAME"], arguments.get("K8S_POD_UID", "")
        )
        return _Attachment(pod, content["containerId"], _addresses(content["result"]), written_ns)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _addresses(result: Mapping[str, Any]) -> frozenset[Address]:
    """Return the addresses of a result of version 0.3.0 or later, without those of the loopback plugin."""
    found = (ip_interface(entry["address"]).ip for entry in result.get("ips") or [])
    return frozenset(ip for ip in found if not ip.is_loopback and not ip.is_link_local)
