"""What the agent takes from each object of the API: never raises, whatever the object says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.enforcement import (
    NODE_LABEL,
    EnforcementConfig,
    EnforcementSetting,
    parse_enforcement_config,
    parse_setting,
)
from tokenbucket.core.api.parse import parse_pod, parse_policy
from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Policy, Refused
from tokenbucket.errors import SpecError

log = logging.getLogger(__name__)

ALLOW_PROTECTED = "tokenbucket.dev/allow-protected"
NOT_READY_TAINT = "tokenbucket.dev/agent-not-ready"


@dataclass(frozen=True, slots=True)
class ThisNode:
    """The agent's own node."""

    name: str
    uid: str
    word: EnforcementSetting
    """What the node's label says, above the switch of the release."""
    tainted: bool


def policy_reader(protected: Collection[str]) -> Callable[[Mapping[str, Any]], Policy | Refused]:
    """Return a reader of policies; one in a protected namespace needs a label that allows it."""

    def read(document: Mapping[str, Any]) -> Policy | Refused:
        metadata = document.get("metadata") or {}
        namespace = metadata.get("namespace") or ""
        labels = metadata.get("labels") or {}
        if namespace in protected and labels.get(ALLOW_PROTECTED) != "true":
            return _refused(
                metadata,
                f"namespace {namespace} is protected; a policy there needs the label {ALLOW_PROTECTED}=true",
            )
        try:
            return parse_policy({**document, "status": None})
        except SpecError as error:
            return _refused(metadata, "; ".join(str(problem) for problem in error.problems))

    return read


def _refused(metadata: Mapping[str, Any], message: str) -> Refused:
    return Refused(
        str(metadata.get("namespace") or ""),
        str(metadata.get("name") or ""),
        str(metadata.get("uid") or ""),
        int(metadata.get("generation") or 0),
        message,
    )


def read_pod(document: Mapping[str, Any]) -> Pod | None:
    """Return a pod, or None if the document is invalid."""
    try:
        return parse_pod({**document, "kind": "Pod"})
    except SpecError as error:
        log.warning("pod not read", extra={"error": str(error)})
        return None


def read_node(document: Mapping[str, Any]) -> ThisNode:
    """Return the agent's node."""
    metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
    word = parse_setting(f"label {NODE_LABEL}", (metadata.get("labels") or {}).get(NODE_LABEL))
    taints = {taint.get("key") for taint in spec.get("taints") or ()}
    return ThisNode(str(metadata.get("name")), str(metadata.get("uid")), word, NOT_READY_TAINT in taints)


def read_switch(document: Mapping[str, Any]) -> EnforcementConfig:
    """Return the settings in the ConfigMap of the release."""
    return parse_enforcement_config(document.get("data") or {})
