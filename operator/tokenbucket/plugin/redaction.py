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
_WORD = r"(?:passw|passphrase|token(?!bucket)|secret|credential|authorization|(?:api|private|access)[_-]?key)"
_FIELD_OF_SECRET = re.compile(rf"(?i){_WORD}")
_OPTION_OF_SECRET = re.compile(rf"(?i)--?[\w-]*{_WORD}[\w-]*")
_QUOTED = r"(?P<quote>\\*[\"'])(?:.*?(?<!\\)(?P=quote)|[^\n]*)"
"""Up to the same quote with as many backslashes: JSON may be inside of JSON."""
_NAMED = (
    re.compile(rf"(?i)(?P<name>{_WORD}[\w.-]{{0,60}}(?:\\*[\"'])?\s*[:=]\s*){_QUOTED}"),
    re.compile(rf"(?i)(?P<name>{_WORD}[\w.-]{{0,60}}(?:\\*[\"'])?\s*:\s*)[^\s\"'][^\n\"']*"),
    re.compile(rf"(?i)(?P<name>(?:{_WORD}[\w.-]{{0,60}}|key)\s*=\s*)[^\s\"'&]+"),
    re.compile(rf"(?i)(?P<name>--[\w-]{{0,60}}?{_WORD}[\w-]{{0,60}}\s+)(?:{_QUOTED}|[^\s\"']+)"),
)
"""Secrets after their names. The name stays."""
_SECRETS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?s)-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)",
        r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*",
        r"(?i)(?<=bearer )\s*[^\s\"']+",
        r"(?i)(?<=basic )\s*[A-Za-z0-9+/=]{8,}",
        r"(?<=://)[^/\s\"']+(?=@)",
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}",
        r"(?<![A-Za-z0-9])(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-|sk-)[A-Za-z0-9_-]{10,}",
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
        for named in _NAMED:
            text = named.sub(rf"\g<name>{REDACTED}", text)
        for kind, pattern in _IDENTIFIERS:
            text = pattern.sub(self._replacing(kind), text)
        return text

    def document(self, value: Any, name: str = "", *, is_secret: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Return a JSON value without addresses, identifiers, secrets and values of the environment.

        A field with the name of a secret has no text at any depth.
        """
        is_secret = is_secret or bool(_FIELD_OF_SECRET.search(name))
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self.document(each, str(key), is_secret=is_secret)
                for key, each in _kept(value, name)
            }
        if isinstance(value, list):
            options = [isinstance(each, str) and bool(_OPTION_OF_SECRET.fullmatch(each)) for each in value]
            return [
                self.document(each, name, is_secret=is_secret or follows)
                for each, follows in zip(value, [False, *options], strict=False)
            ]
        if not isinstance(value, str):
            return value
        return REDACTED if is_secret else self.text(value)

    def _replacing(self, kind: str) -> Callable[[re.Match[str]], str]:
        return lambda match: self._pseudonym(kind, match)

    def _pseudonym(self, kind: str, match: re.Match[str]) -> str:
        found = match[0]
        if kind == "ipv6" and not _is_ipv6(match):
            return found
        key = (kind, _normal(kind, found))
        number = 1 + sum(1 for known, _ in self._pseudonyms if known == kind)
        return self._pseudonyms.setdefault(key, f"<{kind} {number}>")


def _is_ipv6(match: re.Match[str]) -> bool:
    """Return whether a text with colons can be an address. ``std::string`` and a time of day cannot."""
    found, text = match[0], match.string
    if "::" not in found:
        return found.count(":") >= _LEAST_COLONS - ("." in found)
    around = text[: match.start()][-1:], text[match.end() :][:1]
    return any(each.isdigit() for each in found) or not any(each.isalpha() or each == "_" for each in around)


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
