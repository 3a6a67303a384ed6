"""The exceptions of this package, and the exit statuses of its commands.

::

    TokenBucketError
    ├── SpecError          a document is invalid; retrying cannot help until it changes
    ├── UnsupportedError   this machine lacks a required feature
    ├── KernelError        a system call or netlink request failed; retrying may help
    ├── LoadError          the BPF program did not compile, or the verifier rejected it
    └── ApiError           a request to the Kubernetes API failed; retrying may help

Messages have the form "object: problem; action", in lower case without a final period.
"""

from __future__ import annotations

import enum
import errno as errno_names
import os
from dataclasses import dataclass


class TokenBucketError(Exception):
    """Base class of the exceptions of this package."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of one field of a document."""

    field: str
    """Path of the field, such as ``spec.ingress.rate.bits``; empty for the document as a whole."""
    value: object
    """Value of the field; ``None`` if the field is missing."""
    message: str
    """The problem and the fix."""

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        found = "" if self.value is None else f"{_short(self.value)}: "
        return f"{where}{found}{self.message}"


class SpecError(TokenBucketError):
    """A document is invalid. Contains all problems."""

    def __init__(self, subject: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{subject}: " + "; ".join(str(problem) for problem in problems))
        self.subject = subject
        self.problems = problems


class UnsupportedError(TokenBucketError):
    """This machine lacks a required feature, as a probe has shown."""


class LoadError(TokenBucketError):
    """The BPF program did not compile, or the verifier rejected it."""


class KernelError(TokenBucketError):
    """A system call or netlink request failed."""

    def __init__(self, operation: str, subject: str, errno: int) -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        super().__init__(f"{operation} {subject}: {os.strerror(errno)} ({name})")
        self.errno = errno


class IgnoreErrno:
    """A context that ends without an error if the block raises a KernelError with one of these numbers."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        return isinstance(error, KernelError) and error.errno in self._numbers


class ApiError(TokenBucketError):
    """A request to the Kubernetes API failed. ``status`` is 0 if there was no answer."""

    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        super().__init__(f"{method} {path}: {status or 'no answer'}: {message}")
        self.status = status


class ExitCode(enum.IntEnum):
    """Exit status of a command. The numbers are part of the interface."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    UNSUPPORTED = 3
    NOT_FOUND = 4
    UNSEEN = 5

    @property
    def meaning(self) -> str:
        """Return the description of the status."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed, a retry may succeed",
    ExitCode.INVALID: "wrong usage or an invalid document",
    ExitCode.UNSUPPORTED: "this machine does not meet a requirement, or the program does not load",
    ExitCode.NOT_FOUND: "the pod or interface has no limit",
    ExitCode.UNSEEN: "there are limits, or hooks of limits, that this process cannot read",
}


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
