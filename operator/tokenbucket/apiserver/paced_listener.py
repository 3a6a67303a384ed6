"""Accept connections at a limited rate, so that a flood of them takes little CPU time.

The kernel keeps the connections that wait, and drops those for which it has no place.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from asyncio import Task
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_PAUSE_S = 0.005
_PAUSE_AFTER_ERROR_S = 1.0
_MOST_WAITING = 128
_MOST_HANDSHAKES = 64


@dataclass(frozen=True, slots=True)
class Listener:
    """Accepts on all IPv4 and IPv6 addresses if ``host`` is empty."""

    host: str
    port: int
    protocol: Callable[[], asyncio.Protocol | None]
    """Returns the protocol of a new connection, or ``None`` to close it."""
    tls: ssl.SSLContext | None
    longest_s: float
    """Longest handshake of TLS."""

    async def accept(self) -> None:
        """Accept until it is canceled. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with contextlib.ExitStack() as stack:
            listening = [
                stack.enter_context(_listening(family, address))
                for family, *_, address in found
                if _is_supported(family)
            ]
            await asyncio.gather(*map(self._accept_all, listening))

    async def _accept_all(self, listening: socket.socket) -> None:
        loop, handshakes = asyncio.get_running_loop(), set[Task[None]]()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:  # the client has given up, or there are too many open files
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
                continue
            protocol = self.protocol() if len(handshakes) < _MOST_HANDSHAKES else None
            if protocol:
                task = loop.create_task(self._connect(connection, protocol))
                handshakes.add(task)
                task.add_done_callback(handshakes.discard)
            else:
                connection.close()
            await asyncio.sleep(_PAUSE_S)

    async def _connect(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        options: dict[str, Any] = {"ssl_handshake_timeout": self.longest_s} if self.tls else {}
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # the handshake failed, or the client has gone
            await loop.connect_accepted_socket(lambda: protocol, connection, ssl=self.tls, **options)


def _is_supported(family: int) -> bool:
    """Return whether the kernel has the address family. With ``ipv6.disable=1``, it has no IPv6."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return False
        raise
    return True


@contextlib.contextmanager
def _listening(family: int, address: Any) -> Iterator[socket.socket]:  # noqa: ANN401 - depends on the family
    with socket.socket(family, socket.SOCK_STREAM) as found:
        found.setblocking(False)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
        found.listen(_MOST_WAITING)
        yield found
