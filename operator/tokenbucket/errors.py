"""Every exception this package raises on purpose.

::

    TokenBucketError
    ├── SpecError          a document is wrong; retrying is useless until it changes
    ├── UnsupportedError   this machine lacks something that is needed
    ├── KernelError        a system call or netlink request failed; retrying may help
    ├── LoadError          the BPF program did not compile or was refused by the verifier
    └── ApiError           a request to the Kubernetes API failed; retrying may help

Messages read "object: cause" in lower case without a final period, and name the fix where there is one.
"""

from __future__ import annotations

import errno as errno_names
import os
from dataclasses import dataclass


class TokenBucketError(Exception):
    """Base of all errors raised on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field of a document."""

    field: str
    """Path of the field, such as ``spec.ingress.rate.bits``; empty for the document as a whole."""
    value: object
    """What was found there; ``None`` when the field is missing."""
    message: str
    """What is wrong, and the fix."""

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        found = "" if self.value is None else f"{_short(self.value)}: "
        return f"{where}{found}{self.message}"


class SpecError(TokenBucketError):
    """A document is wrong. Carries every problem found, not only the first."""

    def __init__(self, subject: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{subject}: " + "; ".join(str(problem) for problem in problems))
        self.subject = subject
        self.problems = problems


class UnsupportedError(TokenBucketError):
    """This machine lacks something that is needed, found by a probe."""


class LoadError(TokenBucketError):
    """The BPF program did not compile or was refused by the verifier."""


class KernelError(TokenBucketError):
    """A system call or netlink request failed."""

    def __init__(self, operation: str, subject: str, errno: int) -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        super().__init__(f"{operation} {subject}: {os.strerror(errno)} ({name})")
        self.errno = errno


class ApiError(TokenBucketError):
    """A request to the Kubernetes API failed. ``status`` is 0 where no answer came."""

    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        super().__init__(f"{method} {path}: {status or 'no answer'}: {message}")
        self.status = status


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
