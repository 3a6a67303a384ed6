"""Replace addresses, unique identifiers and secrets in texts and documents, each by the same pseudonym.

Too much is replaced rather than too little: a text that only looks like an address has a pseudonym, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

REDACTED = "redacted"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|0*\d{1,2})"
_HEX = r"[0-9A-Fa-f]"
_SECRET_NAME = re.compile(r"(?i)passw|token|secret|credential|authorization|api_?-?key|private_?-?key")
_SECRETS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?s)-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)",
        r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*",
        r"(?i)(?<=bearer )\s*[^\s\"']+",
        r"(?i)(?<=basic )\s*[A-Za-z0-9+/=]{8,}",
        r"(?<=://)[^/\s:@]*:[^/\s@]*(?=@)",
        r"(?i)(?<=password=)[^\s&\"']+|(?<=token=)[^\s&\"']+|(?<=secret=)[^\s&\"']+|(?<=key=)[^\s&\"']+",
    )
)
_IDENTIFIERS = (
    ("uid", re.compile(rf"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}")),
    ("mac", re.compile(rf"{_HEX}{{2}}(?::{_HEX}{{2}}){{5,}}|{_HEX}{{2}}(?:-{_HEX}{{2}}){{5,}}")),
    ("mac", re.compile(rf"{_HEX}{{4}}(?:\.{_HEX}{{4}}){{2}}")),
    (
        "ipv6",
        re.compile(
            rf"(?=[0-9A-Fa-f:]*{_HEX})(?:{_HEX}*:){{2,}}:*(?:{_HEX}*:)*(?:{_OCTET}(?:\.{_OCTET}){{3}}|{_HEX}*)"
        ),
    ),
    ("ipv4", re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")),
    (
        "ipv4",
        re.compile(
            rf"(?<![0-9A-Za-z]){_OCTET}(?:-{_OCTET}){{3}}(?![0-9A-Za-z])|(?<=ip-){_OCTET}(?:-{_OCTET}){{3}}"
        ),
    ),
)
"""In the order of their replacement."""
_LEAST_COLONS = 7
"""An IPv6 address without "::" has seven colons, or six and an IPv4 address. A time of day has two."""


class Redaction:
    """Replaces what may not leave a cluster. An instance gives the same pseudonym to the same address."""

    def __init__(self) -> None:
        self._pseudonyms: dict[tuple[str, str], str] = {}

    def text(self, text: str) -> str:
        """Return a text without addresses, identifiers and secrets."""
        for secret in _SECRETS:
            text = secret.sub(REDACTED, text)
        for kind, pattern in _IDENTIFIERS:
            text = pattern.sub(self._replacing(kind), text)
        return text

    def document(self, value: Any, name: str = "") -> Any:  # noqa: ANN401 - JSON
        """Return a JSON value without addresses, identifiers, secrets and values of the environment."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.document(each, str(key)) for key, each in _kept(value, name)}
        if isinstance(value, list):
            return [self.document(each, name) for each in value]
        if _SECRET_NAME.search(name) and isinstance(value, str):
            return REDACTED
        return self.text(value) if isinstance(value, str) else value

    def _replacing(self, kind: str) -> Callable[[re.Match[str]], str]:
        return lambda match: self._pseudonym(kind, match[0])

    def _pseudonym(self, kind: str, found: str) -> str:
        if kind == "ipv6" and "::" not in found and found.count(":") < _LEAST_COLONS - ("." in found):
            return found
        key = (kind, _normal(kind, found))
        number = 1 + sum(1 for known, _ in self._pseudonyms if known == kind)
        return self._pseudonyms.setdefault(key, f"<{kind} {number}>")


def _kept(value: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    """Return the fields of an object. Variables of the environment lose their values."""
    items = [(key, each) for key, each in value.items() if key != "managedFields"]
    if name == "env":
        items = [(key, REDACTED if key == "value" else each) for key, each in items]
    if name == "annotations":
        items = [(key, each) for key, each in items if "last-applied" not in key]
    return items


def _normal(kind: str, found: str) -> str:
    """Return one form of an address for all of its forms."""
    text = found.lower()
    if kind == "ipv4":
        return ".".join(str(int(part)) for part in re.split(r"[.-]", text))
    if kind == "mac":
        return re.sub(r"[:.-]", "", text)
    try:
        return str(ip_address(text))
    except ValueError:
        return text
