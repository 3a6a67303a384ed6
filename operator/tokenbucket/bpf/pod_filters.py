"""Marks of slots that tc filters inside pods name, for an agent that may no longer enter the pods.

A bpffs can contain folders beside pins, so each mark is an empty folder::

    /sys/fs/bpf/tokenbucket/v2/inside/7_12      the slot, and the number of the namespace
"""

from __future__ import annotations

from pathlib import Path

from tokenbucket.bpf.pins import Pins


class PodFilters:
    """The marks of one layout version."""

    def __init__(self, pins: Pins) -> None:
        self._folder = pins.folder / "inside"

    def mark(self, slot: int, nsid: int) -> None:
        """Record that a filter in a namespace names a slot."""
        (self._folder / f"{slot}_{nsid}").mkdir(parents=True, exist_ok=True)

    def namespaces(self, slot: int) -> set[int]:
        """Return the numbers of the namespaces in which filters named a slot since it was last free."""
        return {int(path.name.split("_")[1]) for path in self._marks(slot)}

    def forget(self, slot: int) -> None:
        """Remove the marks of a slot."""
        for path in self._marks(slot):
            path.rmdir()

    def _marks(self, slot: int) -> list[Path]:
        return list(self._folder.glob(f"{slot}_*"))
