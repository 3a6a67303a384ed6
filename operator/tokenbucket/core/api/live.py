"""Requests for live figures of pods, as the plugin, the controller and the agents exchange them.

An answer contains only pods whose uid the request names. The uid is a capability: a random number that
those who may read the pod know. SECURITY.md lists who else can know it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.errors import Problem, SpecError

VERSION = 1
"""Version of requests and answers."""
PORT_NAME = "live"
"""Name of the port of the controller's Service, which the name in a request to the API server contains."""
MOST_PODS = 256
"""Maximum number of pods in a request."""
MOST_BYTES = 16 * 1024
"""Maximum size of a request."""
MOST_ANSWER_BYTES = 4 * 1024 * 1024
"""Maximum size of an answer."""
AGENT_PATH = "/v1/pods"
RELAY_PATH = "/v1/nodes/{node}/pods"
MOST_PEERS = 16
"""Maximum number of peers per limit in an answer."""
MOST_PODS_WITH_PEERS = 1
"""Maximum number of pods in a request for peers, because the agent reads the whole map of peers."""
_UID = re.compile(r"[0-9A-Za-z][-0-9A-Za-z]{7,63}\Z", re.ASCII)
_SUBJECT = "request"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """The pods of a request."""

    uids: frozenset[str]
    peers: int = 0
    """Number of the busiest peers per limit."""
    minute: bool = True
    """Whether the answer contains the counters of the last minute."""

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document of the request."""
        further = {"peers": self.peers} if self.peers else {}
        return {"version": VERSION, "uids": sorted(self.uids), "lastMinute": self.minute} | further


def parse_request(content: bytes) -> LiveRequest:
    """Parse the body of a request. Raises SpecError."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, Mapping):
        raise _error("", None, 'is not a JSON object; send {"uids": ["..."]}')
    uids, peers = document.get("uids"), document.get("peers", 0)
    if not isinstance(uids, list) or not all(isinstance(uid, str) and _UID.match(uid) for uid in uids):
        raise _error("uids", None, "must be a list of pod uids; read them from metadata.uid of the pods")
    if not 0 < len(uids) <= MOST_PODS:
        raise _error("uids", len(uids), f"must have from 1 to {MOST_PODS} items; send several requests")
    if type(peers) is not int or not 0 <= peers <= MOST_PEERS:
        raise _error("peers", peers, f"must be a number from 0 to {MOST_PEERS}")
    if peers and len(uids) > MOST_PODS_WITH_PEERS:
        raise _error("uids", len(uids), f"must have at most {MOST_PODS_WITH_PEERS} item with peers")
    if not isinstance(minute := document.get("lastMinute", True), bool):
        raise _error("lastMinute", minute, "must be true or false")
    return LiveRequest(frozenset(uids), peers, minute)


def _error(field: str, value: object, message: str) -> SpecError:
    return SpecError(_SUBJECT, (Problem(field, value, message),))


def error_document(subject: str, problem: str, action: str) -> dict[str, Any]:
    """Return the answer to a request that failed."""
    message = f"{subject}: {problem}; {action}"
    error = {"object": subject, "problem": problem, "action": action}
    return {"version": VERSION, "message": message, "error": error}
