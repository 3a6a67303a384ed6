"""The exit statuses of the plugin. The numbers are part of the interface."""

from __future__ import annotations

import enum


class PluginExit(enum.IntEnum):
    """Exit status of a command of the plugin."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNSUPPORTED = 3
    NOT_FOUND = 4
    DEVIATES = 5
    NOT_LIMITED = 6
    UNKNOWN = 7

    @property
    def meaning(self) -> str:
        """Return the description of the status."""
        return _MEANINGS[self]


_MEANINGS = {
    PluginExit.DONE: "done; explain, status: all limits are enforced as declared; check: all nodes delay",
    PluginExit.FAILED: "the command failed, for example because the API server does not answer",
    PluginExit.USAGE: "wrong usage, or no usable kubeconfig",
    PluginExit.UNSUPPORTED: "a Python package or the CRDs of tokenbucket are missing",
    PluginExit.NOT_FOUND: "the object does not exist",
    PluginExit.DEVIATES: "a limit is not enforced as declared; check: a node cannot delay packets",
    PluginExit.NOT_LIMITED: "no limit applies, as declared: no policy, Observe, Off, or exempt",
    PluginExit.UNKNOWN: "the state is unknown: a right is missing, or an agent does not report",
}
