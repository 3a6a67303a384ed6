"""Read untrusted documents field by field, and collect problems with path and fix."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tokenbucket.errors import Problem, SpecError

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z", re.ASCII)


@dataclass(slots=True)
class Validator:
    """Reads one document, and collects its problems."""

    problems: list[Problem] = field(default_factory=list)

    def wrong(self, path: str, value: object, message: str) -> None:
        """Record a problem."""
        self.problems.append(Problem(path, value, message))

    def is_wrong(self, *paths: str) -> bool:
        """Return whether one of these fields, or a field inside it, has a problem."""
        return any(
            problem.field == path or problem.field.startswith((f"{path}.", f"{path}["))
            for problem in self.problems
            for path in paths
        )

    def mapping(self, value: object, path: str, allowed: Collection[str] | None = None) -> Mapping[str, Any]:
        """Return a mapping with text keys, or an empty mapping if the value is invalid. ``allowed`` lists the
        permitted keys.
        """
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.wrong(path, value, "must be a mapping")
            return {}
        for key in value:
            if not isinstance(key, str):
                self.wrong(path, key, "keys must be text")
            elif allowed is not None and key not in allowed:
                close = difflib.get_close_matches(key[:64], allowed, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(allowed))}"
                self.wrong(f"{path}.{key[:64]}".lstrip("."), None, f"is not a field; {hint}")
        return {key: item for key, item in value.items() if isinstance(key, str)}

    def sequence(self, value: object, path: str) -> list[Any]:
        """Return a list, or an empty list if the value is invalid."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(path, value, "must be a list")
            return []
        return value

    def text(self, value: object, path: str, default: str = "", longest: int = 253) -> str:
        """Return a text. ``longest`` is in bytes of UTF-8, as the maps of the kernel store it."""
        if value is None:
            return default
        if not isinstance(value, str) or _size_bytes(value) > longest or "\0" in value:
            self.wrong(path, value, f"must be a text of at most {longest} bytes")
            return default
        return value

    def name(self, value: object, path: str, longest: int = 253) -> str:
        """Return the name of a Kubernetes object."""
        text = self.text(value, path, longest=longest)
        if value is None:
            self.wrong(path, None, "is missing")
        elif (text and not _NAME.match(text)) or value == "":
            self.wrong(
                path,
                value,
                "must have only lower-case letters, digits, '-' and '.', and no '-' or '.' at its ends",
            )
        return text

    def integer(self, value: object, path: str, low: int, high: int) -> int | None:
        """Return a whole number between two bounds."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(path, value, f"must be a whole number from {low} to {high}")
            return None
        return value

    def choice(
        self, value: object, path: str, kind: Callable[[str], T], choices: Collection[str], default: T
    ) -> T:
        """Return one of several words."""
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            close = difflib.get_close_matches(str(value)[:64].capitalize(), choices, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.wrong(path, value, f"must be one of {', '.join(choices)}{hint}")
            return default
        return kind(value)

    def finish(self, subject: str) -> None:
        """Raise SpecError if there is any problem."""
        if self.problems:
            raise SpecError(subject, tuple(self.problems))


def _size_bytes(text: str) -> float:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which an escape in YAML or JSON can produce
        return math.inf


def subject_of(kind: str, document: object) -> str:
    """Return kind, namespace and name of a document, if it contains valid ones."""
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str):
        return f"{kind} without a name"
    return f"{kind} {(namespace if isinstance(namespace, str) else 'default')[:63]}/{name[:253]}"
