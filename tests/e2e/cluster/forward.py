"""Makes the API server, which listens in the cluster's network namespace, reachable on the loopback outside.

Run as ``python forward.py PORT TARGET TARGET_PORT`` in the root box's mount and PID namespaces, but with the
network of outside: the listening socket is made there, then the process moves to the network of the first
process of the box, and connects from there. It lives and dies with the box.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 1 << 16


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def _serve(listening: socket.socket, target: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(target, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))
        writer.close()
        there_writer.close()

    server = await asyncio.start_server(connected, sock=listening)
    await server.serve_forever()


def _enter_network(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns {path}")
    os.close(descriptor)


def main(arguments: list[str]) -> None:
    """Serve until it is killed."""
    port, target, target_port = arguments
    listening = socket.create_server(("127.0.0.1", int(port)))
    _enter_network("/proc/1/ns/net")
    asyncio.run(_serve(listening, target, int(target_port)))


if __name__ == "__main__":
    main(sys.argv[1:])
