"""The CNI result cache: the earliest news of a pod's addresses.

The container runtime's CNI library writes one file for each attachment of a sandbox, once its network is made
and before any container of the pod starts, and removes it with the sandbox:
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
    """One file: an attachment of one sandbox to one network."""

    pod: PodId
    sandbox: str
    addresses: frozenset[Address]
    written_ns: int


class CniResults:
    """The cache of one node, read again where a file has changed. Polled by its file descriptor.

    Nobody depends on it. Where the system has no inotify left (all processes of root share so many), there
    are no events, and it is tried again at each read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._poll = select.epoll()  # there also while there is no inotify
        self._inotify: INotify | None = None
        self._files: dict[str, tuple[tuple[int, ...], _Attachment | None]] = {}
        self._said: set[tuple[str, str]] = set()

    def fileno(self) -> int:
        """Readable when a file has changed."""
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
        """Addresses by pod, of each pod's newest sandbox. Empty where there is no cache (yet)."""
        self._watch()
        attachments = [each for each in self._read_files() if each]
        newest: dict[PodId, _Attachment] = {}
        for each in attachments:
            known = newest.get(each.pod)
            if known is None or each.written_ns > known.written_ns:
                newest[each.pod] = each
        found: dict[PodId, frozenset[Address]] = {}
        for each in attachments:
            if each.sandbox == newest[each.pod].sandbox:
                found[each.pod] = found.get(each.pod, frozenset()) | each.addresses
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
            self._say("CNI result cache not watched", error)

    def _say(self, event: str, error: OSError) -> None:
        """Once, for each cause."""
        said = event, error.strerror or ""
        if said not in self._said:
            log.warning(event, extra={"folder": str(self.folder), "error": error.strerror})
        self._said.add(said)

    def _read_files(self) -> Iterator[_Attachment | None]:
        try:
            present = {path.name: path for path in self.folder.iterdir()}
        except FileNotFoundError:
            present = {}
        except OSError as error:
            self._say("CNI result cache not read", error)
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
        except OSError:  # it has gone meanwhile
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
    """One file's content; ``None`` for what is no result, or is still being written."""
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
    """Of results from version 0.3.0 on, which every plugin of today gives.

    The runtime runs the loopback plugin too: its addresses are those of every pod.
    """
    found = (ip_interface(entry["address"]).ip for entry in result.get("ips") or [])
    return frozenset(each for each in found if not each.is_loopback and not each.is_link_local)
