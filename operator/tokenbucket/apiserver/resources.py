"""The kinds of object that are read and written, and where the API serves them."""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "tokenbucket.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, as the API's paths name it. The core group is empty."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Path of all objects, those of one namespace, or one object."""
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
EVENTS = Resource("", "v1", "events")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind are watched."""

    resource: Resource
    fields: str = ""
    labels: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """The query of a list request."""
        given = {"fieldSelector": self.fields, "labelSelector": self.labels}
        return {name: value for name, value in given.items() if value}
