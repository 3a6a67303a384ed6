"""Protected namespaces: a policy there needs a label, so that no tenant limits the system."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_ALLOW = "tokenbucket.dev/allow-protected"


def protection_error(metadata: Mapping[str, Any], protected: Collection[str], subject: str = "policy") -> str:
    """Return why an object with these metadata is not allowed in its namespace, or an empty text."""
    namespace, labels = metadata.get("namespace") or "", metadata.get("labels") or {}
    if namespace not in protected or labels.get(_ALLOW) == "true":
        return ""
    return f"namespace {namespace} is protected; a {subject} there needs the label {_ALLOW}=true"
