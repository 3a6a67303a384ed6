"""The bpf(2) system call: pins, map elements, object info and programs.

A thin layer of ctypes over ``union bpf_attr`` of ``linux/bpf.h``, whose layouts only grow. The module knows
nothing of this project's maps. Every function raises KernelError with the errno and the object's name.

libbpf is not used: its version 1.1, in Debian 12, does not know the attributes of a tcx query.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.errors import IgnoreErrno, KernelError, UnsupportedError

_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280}
_MEMBARRIER_NUMBERS = {"x86_64": 324, "aarch64": 283}
_MEMBARRIER_GLOBAL = 1
_NAME_BYTES = 16
_INSTRUCTION_BYTES = 8
_SCHED_CLS = 3
_ITEMS = 4096
"""Elements of a hash that one system call reads."""
_BATCH_COUNT = 32
"""Offset of the number of elements in the attributes of a batch."""


class Command(enum.IntEnum):
    """``enum bpf_cmd``."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class MapType(enum.IntEnum):
    """``enum bpf_map_type``, the types of the pinned maps."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_ARRAY = 6
    LRU_HASH = 9


@dataclass(frozen=True, slots=True)
class MapInfo:
    """The start of ``struct bpf_map_info``. Sizes are in bytes, those of a per-CPU map for one CPU."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """Fields of ``struct bpf_prog_info``."""

    type: int
    id: int
    name: str


def _bpf_number() -> int:
    machine = platform.machine()
    if machine not in _SYSCALL_NUMBERS:
        raise UnsupportedError(f"bpf(2): architecture {machine} is not supported; use x86-64 or arm64")
    return _SYSCALL_NUMBERS[machine]


_LICENSE = ctypes.create_string_buffer(b"Dual BSD/GPL")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def bpf(command: Command, attributes: bytes, subject: str) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """Return the result of a command, and the attributes, which the kernel may change. Raises KernelError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call(command, buffer, subject), buffer


def _call(command: Command, buffer: ctypes.Array[ctypes.c_char], subject: str) -> int:
    """Call bpf(2) with attributes that the kernel may change even if the call fails."""
    result = _libc.syscall(_bpf_number(), int(command), ctypes.byref(buffer), len(buffer))
    if result < 0:
        raise KernelError(f"bpf {command.name}", subject, ctypes.get_errno())
    return int(result)


def wait_for_programs() -> None:
    """Wait until all programs that run now have ended.

    membarrier(2) waits for an RCU grace period, of some 10 ms, and programs run in RCU read-side critical
    sections. A kernel with CPUs without a tick (nohz_full) rejects it: then there is no wait.
    """
    _libc.syscall(_MEMBARRIER_NUMBERS[platform.machine()], _MEMBARRIER_GLOBAL, 0, 0)


def pin(fd: int, path: Path) -> None:
    """Pin an object at a path of a bpffs. Raises KernelError with EEXIST if the path exists."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(Command.OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0), str(path))


def open_pin(path: Path) -> int:
    """Return a file descriptor of a pinned object. Raises KernelError with ENOENT if there is no pin."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(Command.OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0), str(path))[0]


def program_by_id(program_id: int) -> int:
    """Return a file descriptor of a loaded program. Raises KernelError with ENOENT if it is unloaded."""
    return bpf(Command.PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0), f"program {program_id}")[0]


def object_info(fd: int, size: int, subject: str) -> bytes:
    """Return the first ``size`` bytes of an object's info."""
    info = ctypes.create_string_buffer(size)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, ctypes.addressof(info)), subject)
    return info.raw


def map_info(fd: int, subject: str = "map") -> MapInfo:
    """Return type, id and sizes of a map."""
    return MapInfo(*struct.unpack_from("=IIIII", object_info(fd, 24, subject)))


def program_info(fd: int, subject: str = "program") -> ProgramInfo:
    """Return type, id and name of a program."""
    raw = object_info(fd, 64 + _NAME_BYTES, subject)
    kind, program_id = struct.unpack_from("=II", raw)
    name = raw[64 : 64 + _NAME_BYTES].split(b"\0", 1)[0].decode()
    return ProgramInfo(kind, program_id, name)


def first_map_id(fd: int, subject: str = "program") -> int:
    """Return the id of the first map of a program, 0 if it has none."""
    ids = ctypes.create_string_buffer(4)
    asked = struct.pack("=52xIQ", 1, ctypes.addressof(ids))  # nr_map_ids and map_ids of struct bpf_prog_info
    info = ctypes.create_string_buffer(asked, len(asked))
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(asked), ctypes.addressof(info)), subject)
    return int.from_bytes(ids.raw, sys.byteorder)


def load_program(instructions: bytes, name: str) -> int:
    """Load a program of type SCHED_CLS, and return its file descriptor. ``name`` has at most 15 bytes."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    attributes = struct.pack(
        "=IIQQIIQII16s",
        *(_SCHED_CLS, len(instructions) // _INSTRUCTION_BYTES, ctypes.addressof(code)),
        *(ctypes.addressof(_LICENSE), 0, 0, 0, 0, 0, name.encode()),
    )
    return bpf(Command.PROG_LOAD, attributes, name)[0]


def create_program_array(entries: int, name: str) -> int:
    """Create an array of programs for tail calls, and return its file descriptor."""
    attributes = struct.pack("=IIIIIII16s", MapType.PROG_ARRAY, 4, 4, entries, 0, 0, 0, name.encode())
    return bpf(Command.MAP_CREATE, attributes, name)[0]


def lookup(fd: int, key: int, size: int, subject: str = "map") -> bytes:
    """Return one element of an array.

    ``size`` is in bytes. For a per-CPU array it covers the values of all CPUs.
    """
    key_buffer, value = ctypes.c_uint32(key), ctypes.create_string_buffer(size)
    bpf(Command.MAP_LOOKUP_ELEM, _element(fd, key_buffer, value), f"{subject}[{key}]")
    return value.raw


def update(fd: int, key: int, value: bytes, subject: str = "map") -> None:
    """Write one element of an array. For a per-CPU array, ``value`` holds the values of all CPUs."""
    key_buffer, buffer = ctypes.c_uint32(key), ctypes.create_string_buffer(value, len(value))
    bpf(Command.MAP_UPDATE_ELEM, _element(fd, key_buffer, buffer), f"{subject}[{key}]")


def insert(fd: int, key: bytes, value: bytes, subject: str = "map") -> None:
    """Write one element of a hash. Raises KernelError with E2BIG if the hash is full."""
    key_buffer, buffer = (ctypes.create_string_buffer(part, len(part)) for part in (key, value))
    bpf(Command.MAP_UPDATE_ELEM, _element(fd, key_buffer, buffer), subject)


def delete(fd: int, key: bytes, subject: str = "map") -> None:
    """Delete one element of a hash. Raises KernelError with ENOENT if it does not exist."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    attributes = struct.pack("=I4xQQQ", fd, ctypes.addressof(key_buffer), 0, 0)
    bpf(Command.MAP_DELETE_ELEM, attributes, subject)


def _element(
    fd: int, key: ctypes.c_uint32 | ctypes.Array[ctypes.c_char], value: ctypes.Array[ctypes.c_char]
) -> bytes:
    return struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0)


class ArrayReader:
    """Reads values of an array into one buffer. Use it from one thread at a time."""

    def __init__(self, fd: int, count: int, size: int, subject: str) -> None:
        """Prepare to read up to ``count`` values of ``size`` bytes each from an array."""
        self._fd, self._count, self._size, self._subject = fd, count, size, subject
        self._values = ctypes.create_string_buffer(count * size)
        self._keys = (ctypes.c_uint32 * count)()

    def read(self, first: int = 0, count: int | None = None) -> memoryview:
        """Return the values from the key ``first`` on, by one system call. The next call changes them.

        Raises KernelError.
        """
        count = self._count if count is None else count
        before, after = ctypes.c_uint32(first - 1), ctypes.c_uint32()
        positions = (ctypes.addressof(before) if first else 0, ctypes.addressof(after))
        attributes = _batch(self._fd, self._keys, self._values, count, positions)
        with IgnoreErrno(errno.ENOENT):  # the array ends with this batch
            bpf(Command.MAP_LOOKUP_BATCH, attributes, self._subject)
        return memoryview(self._values).cast("B")[: count * self._size]


def items(fd: int, key_size: int, value_size: int, subject: str = "map") -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a hash. May miss elements that change during the iteration."""
    keys = ctypes.create_string_buffer(_ITEMS * key_size)
    values = ctypes.create_string_buffer(_ITEMS * value_size)
    places = ((ctypes.c_uint32 * 1)(), (ctypes.c_uint32 * 1)())
    first, more = True, True
    while more:
        before, after = (ctypes.addressof(place) for place in places)
        wanted = _batch(fd, keys, values, _ITEMS, (0 if first else before, after))
        attributes = ctypes.create_string_buffer(wanted, len(wanted))
        more = False
        with IgnoreErrno(errno.ENOENT):  # the hash ends with this batch
            _call(Command.MAP_LOOKUP_BATCH, attributes, subject)
            more = True
        (count,) = struct.unpack_from("=I", attributes, _BATCH_COUNT)
        found, held = keys.raw, values.raw
        for index in range(count):
            yield (
                found[index * key_size : (index + 1) * key_size],
                held[index * value_size : (index + 1) * value_size],
            )
        first, places = False, (places[1], places[0])


def _batch(
    fd: int,
    keys: ctypes.Array[ctypes.c_char] | ctypes.Array[ctypes.c_uint32],
    values: ctypes.Array[ctypes.c_char],
    count: int,
    positions: tuple[int, int] = (0, 0),
) -> bytes:
    addresses = (ctypes.addressof(keys), ctypes.addressof(values))
    return struct.pack("=QQQQIIQQ", *positions, *addresses, count, fd, 0, 0)
