"""Translate a label selector of the command line into the ``podSelector`` of a policy."""

from __future__ import annotations

import re
from typing import Any

from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit

_COMMA = re.compile(r",(?![^(]*\))")
"""Not between the values of a set."""
_KEY = r"(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)"
_EQUAL = re.compile(rf"{_KEY}\s*(?P<operator>==?|!=)\s*(?P<value>[-A-Za-z0-9_.]*)")
_SET = re.compile(rf"{_KEY}\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EXISTS = re.compile(rf"(?P<operator>!?)\s*{_KEY}")
_OPERATORS = {"in": "In", "notin": "NotIn", "!=": "NotIn", "": "Exists", "!": "DoesNotExist"}


def pod_selector(text: str) -> dict[str, Any]:
    """Return the document of a selector. Raises PluginError."""
    labels: dict[str, str] = {}
    expressions: list[dict[str, Any]] = []
    for part in map(str.strip, _COMMA.split(text)):
        if match := _EQUAL.fullmatch(part):
            if match["operator"] == "!=":
                expressions.append(_expression(match, [match["value"]]))
            elif match["key"] in labels:
                raise PluginError(f"selector: {match['key']} has two values; keep one", PluginExit.USAGE)
            else:
                labels[match["key"]] = match["value"]
        elif match := _SET.fullmatch(part):
            expressions.append(_expression(match, [value.strip() for value in match["values"].split(",")]))
        elif match := _EXISTS.fullmatch(part):
            expressions.append(_expression(match, []))
        else:
            problem = f"{part!r} is not a label selector; write one such as app=web,tier!=db"
            raise PluginError(f"selector: {problem}", PluginExit.USAGE)
    document = {"matchLabels": labels, "matchExpressions": expressions}
    return {name: value for name, value in document.items() if value}


def _expression(match: re.Match[str], values: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"key": match["key"], "operator": _OPERATORS[match["operator"]]}
    return found | ({"values": values} if values else {})
