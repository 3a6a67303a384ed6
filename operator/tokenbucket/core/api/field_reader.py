"""Read untrusted documents field by field, and collect problems with path and fix."""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from tokenbucket.errors import Problem, SpecError

E = TypeVar("E", bound=enum.StrEnum)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z", re.ASCII)
_NAME_FORMAT = "must have only lower-case letters, digits, '-' and '.', and no '-' or '.' at its ends"


@dataclass(frozen=True, slots=True)
class FieldReader:
    """Reads the fields of one object of a document. The items of a list are fields "[0]", "[1]" and so on.

    All objects of a document share the list of problems. A missing field is not a problem.
    """

    values: Mapping[str, Any]
    path: str = ""
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, document: object, allowed: Collection[str] | None = None) -> Self:
        """Return the validator of a document."""
        return cls({"": document}).object("", allowed)

    def at(self, name: str) -> str:
        """Return the path of a field."""
        separator = "" if not name or name.startswith("[") else "."
        return f"{self.path}{separator}{name[:64]}".lstrip(".")

    def error(self, name: str, value: object, message: str) -> None:
        """Record a problem of a field."""
        self.problems.append(Problem(self.at(name), value, message))

    def has_error(self, *names: str) -> bool:
        """Return whether one of these fields, or a field inside it, has a problem."""
        paths = [self.at(name) for name in names]
        inside = tuple(f"{path}{separator}" for path in paths for separator in ".[")
        return any(problem.field in paths or problem.field.startswith(inside) for problem in self.problems)

    def get(self, name: str) -> Any:  # noqa: ANN401 - not validated
        """Return the value of a field, or ``None``."""
        return self.values.get(name)

    def object(self, name: str, allowed: Collection[str] | None = None) -> Self:
        """Return the fields of an object, or none if the value is invalid. ``allowed`` lists the permitted
        keys.
        """
        value, inner = self.get(name), replace(self, values={}, path=self.at(name))
        if value is None:
            return inner
        if not isinstance(value, Mapping):
            self.error(name, value, "must be a mapping")
            return inner
        for key in value:
            if not isinstance(key, str):
                self.error(name, key, "keys must be text")
            elif allowed is not None and key not in allowed:
                close = difflib.get_close_matches(key[:64], allowed, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(allowed))}"
                inner.error(key, None, f"is not a field; {hint}")
        return replace(inner, values={key: item for key, item in value.items() if isinstance(key, str)})

    def sequence(self, name: str) -> Self:
        """Return the items of a list, or none if the value is invalid."""
        value = self.get(name)
        if value is not None and not isinstance(value, list):
            self.error(name, value, "must be a list")
            value = None
        return replace(
            self,
            values={f"[{number}]": item for number, item in enumerate(value or ())},
            path=self.at(name),
        )

    def text(self, name: str, longest: int = 253) -> str:
        """Return a text. ``longest`` is in bytes of UTF-8, because the maps of the kernel limit bytes."""
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or _size_bytes(value) > longest or "\0" in value:
            self.error(name, value, f"must be a string of at most {longest} bytes")
            return ""
        return value

    def name(self, name: str, longest: int = 253, default: str | None = None) -> str:
        """Return the name of a Kubernetes object."""
        if default is not None and name not in self.values:
            return default
        value, text = self.get(name), self.text(name, longest)
        if value is None:
            self.error(name, None, "is missing")
        elif (text and not _NAME.match(text)) or value == "":
            self.error(name, value, _NAME_FORMAT)
        return text

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number between two bounds."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.error(name, value, f"must be a whole number from {low} to {high}")
            return None
        return value

    def choice(self, name: str, kind: type[E], default: E) -> E:
        """Return a member of an enumeration."""
        value = self.get(name)
        if value is None:
            return default
        choices = [member.value for member in kind]
        if not isinstance(value, str) or value not in choices:
            close = difflib.get_close_matches(str(value)[:64].capitalize(), choices, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(name, value, f"must be one of {', '.join(choices)}{hint}")
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
