"""Fetch the live figures of pods from many agents at once, through the API server and the relay."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tokenbucket.core.api.live import MOST_PODS, PORT_NAME, RELAY_PATH, LiveRequest
from tokenbucket.plugin.errors import DeniedError, MissingError, PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.resources import REPORTS, SERVICES

if TYPE_CHECKING:  # the parser of commands imports this module, and the client may be missing
    from tokenbucket.plugin.connection import Connection

Document = dict[str, Any]
_Request = tuple[Future[list[Document]], str, LiveRequest]
_DEFAULT_SERVICE = "tokenbucket-system/tokenbucket-live"
_NODES_AT_ONCE = 32
_SUFFIX = "-live"


@dataclass(frozen=True, slots=True)
class Figures:
    """The answers of the agents."""

    pods: Mapping[str, Document] = field(default_factory=dict)
    """The documents of pods by uid, each with the name and the enforcement mode of its node."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """The nodes that did not answer, and why."""


def add_service_option(command: argparse.ArgumentParser) -> None:
    """Add the option for the Service of the relay."""
    command.add_argument(
        "--live-service",
        default=os.environ.get("TOKENBUCKET_LIVE_SERVICE", ""),
        metavar="NAMESPACE/NAME",
        help="Service of the live figures (default: of the release that the agents report, or"
        f" {_DEFAULT_SERVICE}); TOKENBUCKET_LIVE_SERVICE sets it, too",
    )


def find_service(option: str, connection: Connection) -> tuple[str, str]:
    """Return namespace and name of the Service. Raises PluginError for an invalid option.

    Users without the right to list TokenBucketNodes get the default.
    """
    namespace, slash, name = option.partition("/")
    if option:
        if not (namespace and slash and name) or "/" in name:
            raise PluginError(f"--live-service: {option}: must be NAMESPACE/NAME", PluginExit.USAGE)
        return namespace, name
    release = release_of(connection)
    found = f"{release}{_SUFFIX}" if release else _DEFAULT_SERVICE
    namespace, _, name = found.partition("/")
    return namespace, name


def release_of(connection: Connection) -> str:
    """Return the release that an agent reports, as NAMESPACE/NAME; empty without the right or a report."""
    try:
        answer = connection.request("GET", REPORTS.path(), f"list {REPORTS}", {"limit": "1"})
    except (DeniedError, MissingError):
        return ""
    releases = (
        ((item.get("status") or {}).get("agent") or {}).get("release") for item in answer.get("items") or ()
    )
    return next((str(each) for each in releases if each), "")


class LiveClient:
    """Asks one agent per node, in parallel.

    The threads are daemons: the plugin ends at once, without the answers that it waits for. A node whose
    answer is late gets no further request until it has answered.
    """

    def __init__(self, connection: Connection, service: tuple[str, str]) -> None:
        self._connection = connection
        self._namespace, self._name = service
        self._work: SimpleQueue[_Request] = SimpleQueue()
        self._threads = 0
        self._running: dict[str, Future[list[Document]]] = {}

    def fetch(
        self,
        uids: Mapping[str, Collection[str]],
        timeout_s: float | None = None,
        peers: int = 0,
        *,
        minute: bool = True,
    ) -> Figures:
        """Return the figures of pods. ``uids`` are the pods' uids by node.

        Raises DeniedError if the user may not use the relay.
        """
        for node, wanted in uids.items():
            if node not in self._running:
                self._running[node] = self._submit(node, LiveRequest(frozenset(wanted), peers, minute))
        wait([self._running[node] for node in uids], timeout_s)
        pods: dict[str, Document] = {}
        silent: dict[str, str] = {}
        for node in sorted(uids):
            if not self._running[node].done():
                silent[node] = "no answer yet"
                continue
            try:
                pods |= _by_uid(node, self._running.pop(node).result())
            except DeniedError:
                raise
            except PluginError as error:
                silent[node] = self._problem(node, error)
        return Figures(pods, silent)

    def _problem(self, node: str, error: PluginError) -> str:
        """Return what the relay or the agent wrote, without the node, or the whole message."""
        _, is_theirs, problem = str(error).partition(f"node {node}: ")
        if is_theirs:
            return problem.removesuffix("; try again")
        if isinstance(error, MissingError):
            service = f"{self._namespace}/{self._name}"
            return f"Service {service} does not exist; set live.enabled of the chart, or --live-service"
        return str(error)

    def _submit(self, node: str, request: LiveRequest) -> Future[list[Document]]:
        answer: Future[list[Document]] = Future()
        self._work.put((answer, node, request))
        if self._threads < _NODES_AT_ONCE:
            self._threads += 1
            Thread(target=self._run, name="live", daemon=True).start()
        return answer

    def _run(self) -> None:
        while True:
            answer, node, request = self._work.get()
            try:
                answer.set_result(self._ask(node, request))
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                answer.set_exception(error)

    def _ask(self, node: str, request: LiveRequest) -> list[Document]:
        path = SERVICES.path(self._namespace, f"{self._name}:{PORT_NAME}")
        path = f"{path}/proxy{RELAY_PATH.format(node=quote(node, safe=''))}"
        right = f"create services/proxy {self._name}:{PORT_NAME} in namespace {self._namespace}"
        uids = sorted(request.uids)
        parts = [uids[start : start + MOST_PODS] for start in range(0, len(uids), MOST_PODS)]
        requests = [replace(request, uids=frozenset(part)) for part in parts]
        return [self._connection.request("POST", path, right, body=each.to_document()) for each in requests]


def _by_uid(node: str, answers: list[Document]) -> dict[str, Document]:
    """Return the pods of a node. Raises PluginError if its agent does not know its pods yet."""
    if not all(answer.get("reconciled", True) for answer in answers):
        raise PluginError(f"node {node}: its agent has just started; retry later")
    return {
        pod["uid"]: {**pod, "node": node, "enforcement": answer.get("enforcement")}
        for answer in answers
        for pod in _pods(answer)
    }


def _pods(answer: Document) -> Iterator[Document]:
    """Yield the pods of an answer, whatever else it contains."""
    found = answer.get("pods")
    for pod in found if isinstance(found, list) else ():
        if isinstance(pod, dict) and isinstance(pod.get("uid"), str):
            yield pod
