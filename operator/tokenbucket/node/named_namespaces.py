"""Names of namespaces in /run/netns, and the namespaces of pods that no interface of the node leads to.

Only root can create a name. Namespaces of processes are not searched for addresses: any process may create
them, and give them the address of another pod.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tokenbucket.netlink.addresses import Address
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.namespaces import (
    Namespace,
    ensure_number,
    name_exists,
    named_namespace,
    named_namespaces,
)


class NamedNamespaces:
    """The named namespaces, which are read only to find addresses that are nowhere else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers: dict[Namespace, int] = {}
        """The numbers of the namespaces whose names were looked up."""
        self.numbers: frozenset[int] = frozenset()
        """The numbers of the namespaces that no interface leads to."""
        self._sought: set[Address] = set()
        """Addresses that were nowhere when the names were read."""
        self._seen: set[Namespace] = set()

    def number(self, name: str) -> int | None:
        """Return the number of the namespace with a name, or ``None`` if there is none."""
        namespace = named_namespace(name)
        if namespace is None:
            return None
        number = self._numbers.get(namespace)
        if number is None:
            number = ensure_number(self._connection, namespace)
        if number is not None:
            self._numbers[namespace] = number
        return number

    def is_gone(self, name: str) -> bool:
        """Return whether a name does not exist, although other names of namespaces do.

        Without any name, the process may not see the node's /run/netns.
        """
        return not name_exists(name) and next(named_namespaces(), None) is not None

    def look_for(self, addresses: Iterable[Address], reachable: Collection[int | None]) -> bool:
        """Read the names, once for each address. Return whether there are new namespaces.

        ``reachable`` are the numbers of namespaces that interfaces lead to.

        Raises:
            KernelError: the names cannot be read, or a resource is exhausted.
        """
        if self._sought.issuperset(addresses):
            return False
        self._sought.update(addresses)
        before = self.numbers
        self.numbers |= self._read_new().difference(reachable)
        return self.numbers != before

    def mark_stale(self) -> None:
        """Let each address that is nowhere be looked for once more, under all names."""
        self._sought.clear()
        self._seen.clear()
        self._numbers.clear()

    def forget(self, nsid: int) -> None:
        """Forget a number: it is free, or another namespace has it."""
        self.numbers -= {nsid}
        self._numbers = {namespace: number for namespace, number in self._numbers.items() if number != nsid}

    def read_again(self) -> frozenset[int]:
        """Return the numbers that still belong to named namespaces. Raises KernelError."""
        if self.numbers:
            self._seen.clear()
            self.numbers &= self._read_new()
        return self.numbers

    def _read_new(self) -> set[int]:
        """Return the numbers of the namespaces that were not seen before."""
        new = [namespace for namespace in named_namespaces() if namespace not in self._seen]
        self._seen.update(new)
        numbers = (ensure_number(self._connection, namespace) for namespace in new)
        return {number for number in numbers if number is not None}
