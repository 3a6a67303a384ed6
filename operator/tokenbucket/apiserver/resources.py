"""Define the kinds of objects, their paths in the API, and the parts that all objects have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarl import URL

_SELECTORS = ("fieldSelector", "labelSelector")
GROUP = "tokenbucket.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, with the names in API paths. The core group is empty."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the path of all objects, the objects of a namespace, or one object."""
        parts = ["/apis", self.group] if self.group else ["/api"]
        parts.append(self.version)
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


POLICIES = Resource(GROUP, VERSION, "tokenbucketpolicies")
REPORTS = Resource(GROUP, VERSION, "tokenbucketnodes")
PODS = Resource("", "v1", "pods")
NODES = Resource("", "v1", "nodes")
CONFIG_MAPS = Resource("", "v1", "configmaps")
DAEMON_SETS = Resource("apps", "v1", "daemonsets")
EVENTS = Resource("", "v1", "events")


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of a kind to list and watch."""

    resource: Resource
    fields: str = ""
    labels: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """Return the query parameters of a list request."""
        given = dict(zip(_SELECTORS, (self.fields, self.labels), strict=True))
        return {name: value for name, value in given.items() if value}

    def lists(self, url: URL, namespace: str | None) -> bool:
        """Return whether a request to this URL lists the selected objects of the namespace."""
        given = {name: url.query[name] for name in _SELECTORS if name in url.query}
        return url.path == self.resource.path(namespace) and given == self.parameters


def metadata_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of an object; an empty mapping if the object has none."""
    return document.get("metadata") or {}


def version_of(metadata: Mapping[str, Any]) -> int:
    """Return a resource version as a number, or -1 if it is invalid."""
    text = metadata.get("resourceVersion")
    return int(text) if isinstance(text, str) and text.isdecimal() else -1


def is_ready(document: Mapping[str, Any]) -> bool:
    """Report whether the condition ``Ready`` of a pod or node is ``True``."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
