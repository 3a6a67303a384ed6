"""Read the common parts of a Kubernetes object: metadata and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def metadata_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of an object; an empty mapping if the object has none."""
    return document.get("metadata") or {}


def is_ready(document: Mapping[str, Any]) -> bool:
    """Report whether the condition ``Ready`` of a pod or node is ``True``."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
