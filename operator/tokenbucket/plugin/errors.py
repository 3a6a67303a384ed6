"""The errors of the plugin, with their exit statuses. Messages have the form ``object: problem; action``."""

from __future__ import annotations

from tokenbucket.errors import TokenBucketError
from tokenbucket.plugin.exit_codes import PluginExit


class PluginError(TokenBucketError):
    """A command of the plugin cannot continue."""

    def __init__(self, message: str, code: PluginExit = PluginExit.FAILED) -> None:
        super().__init__(message)
        self.code = code


class DeniedError(PluginError):
    """The user lacks a right. ``right`` names it, such as "get nodes" or "list pods in namespace shop"."""

    def __init__(self, right: str) -> None:
        super().__init__(f"API server: the right to {right} is missing; ask an administrator for it")
        self.right = right


class MissingError(PluginError):
    """An object does not exist."""

    def __init__(self, message: str) -> None:
        super().__init__(message, PluginExit.NOT_FOUND)
