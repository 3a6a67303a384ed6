"""The errors of the plugin, with their exit statuses. Messages have the form ``object: problem; action``."""

from __future__ import annotations

import re

from tokenbucket.errors import TokenBucketError
from tokenbucket.plugin.exit_codes import PluginExit

_LACKS_RIGHT = re.compile(r"\bcannot \S+ (resource|path)\b")
"""The message of the API server about a missing right."""


class PluginError(TokenBucketError):
    """A command of the plugin cannot continue."""

    def __init__(self, message: str, code: PluginExit = PluginExit.FAILED) -> None:
        super().__init__(message)
        self.code = code


class RefusedError(PluginError):
    """The API server rejected a request, and has changed nothing."""


class DeniedError(RefusedError):
    """The user lacks a right. ``right`` names it, such as "get nodes" or "list pods in namespace shop"."""

    def __init__(self, right: str, message: str = "") -> None:
        problem = f"API server: the right to {right} is missing; ask an administrator for it"
        if message and not _LACKS_RIGHT.search(message):  # a quota, an admission policy or a webhook
            problem = f"API server: {right}: forbidden: {message}; remove this cause, or ask an administrator"
        super().__init__(problem)
        self.right = right


class MissingError(RefusedError):
    """An object does not exist."""

    def __init__(self, message: str) -> None:
        super().__init__(message, PluginExit.NOT_FOUND)
