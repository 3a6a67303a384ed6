"""The connection to the API server, with the official client and the kubeconfig of the user."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from tokenbucket.plugin.errors import DeniedError, MissingError, PluginError, RefusedError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.resources import POLICIES, Kind

Document = dict[str, Any]
_TIMEOUTS_S = (5, 30)
"""Of the connection, and of the answer."""
_PAGE = 500
_REQUEST_TIMEOUT = 408
"""A proxy sends this status also after the API server got the request."""
_CONNECTIONS = 32
_NO_KIND = "404 page not found"
"""The answer of the API server about objects of a kind that it does not know."""
_NO_CLUSTER = ("Invalid kube-config file. No configuration found", "does not exist, or names no cluster")
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Connection:
    """Reads objects as documents. Several threads may share it."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace
        """The namespace of the option, or of the context."""
        self.now = time()
        """The time of the API server, because clocks of users can be wrong."""

    def get(self, kind: Kind, name: str, namespace: str = "") -> Document:
        """Return one object. Raises MissingError, DeniedError or PluginError."""
        path = kind.path(namespace, name)
        try:
            return self.request("GET", path, _right("get", kind, namespace))
        except MissingError as error:
            if str(error) == _NO_KIND:
                raise PluginError(_unknown_kind(kind), PluginExit.UNSUPPORTED) from None
            where = f" in namespace {namespace}" if namespace else ""
            text = f"{kind.singular} {name}: does not exist{where}; check the name and -n"
            raise MissingError(text) from None

    def list(self, kind: Kind, namespace: str = "", **selectors: str) -> list[Document]:
        """Return the objects of a namespace, or of all namespaces. Raises DeniedError or PluginError.

        ``selectors`` are ``labelSelector`` and ``fieldSelector``.
        """
        query = {**{name: text for name, text in selectors.items() if text}, "limit": str(_PAGE)}
        found: list[Document] = []
        while True:
            try:
                answer = self.request("GET", kind.path(namespace), _right("list", kind, namespace), query)
            except MissingError:  # not the namespace: its list would be empty
                raise PluginError(_unknown_kind(kind), PluginExit.UNSUPPORTED) from None
            found += answer.get("items") or []
            following = (answer.get("metadata") or {}).get("continue")
            if not following:
                return found
            query["continue"] = following

    def request(
        self,
        method: str,
        path: str,
        right: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Document:
        """Send a request, and return the JSON object of the answer. ``right`` names what it needs.

        Raises MissingError, DeniedError or PluginError.
        """
        return _parsed(self._send(method, path, right, query, body), self._server)

    def text(self, path: str, right: str, query: Mapping[str, str] | None = None) -> str:
        """Return a text, such as a log. Raises MissingError, DeniedError or PluginError."""
        return self._send("GET", path, right, query, None).decode(errors="replace")

    def _send(
        self, method: str, path: str, right: str, query: Mapping[str, str] | None, body: object
    ) -> bytes:
        headers = {"Accept": "application/json, */*"} | ({"Content-Type": "application/json"} if body else {})
        prepared = self._api.param_serialize(
            method, path, query_params=[*(query or {}).items()], header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            answer = self._api.call_api(*prepared, _request_timeout=_TIMEOUTS_S)
            content = bytes(answer.read())
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError, ValueError) as error:
            raise PluginError(f"{self._server}: no answer: {_cause(error)}; {_CHECK}") from error
        self._read_clock(answer.getheader("Date"))
        if not 200 <= answer.status < 300:
            raise self._refused(answer.status, right, _message(content))
        return content

    @property
    def _server(self) -> str:
        return f"API server {self._api.configuration.host}"

    def _read_clock(self, date: str | None) -> None:
        try:
            self.now = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            self.now = time()

    def _refused(self, status: int, right: str, message: str) -> PluginError:
        match status:
            case 401:
                text = "the credentials are not valid or have expired; log in again, or see --context"
                return RefusedError(f"{self._server}: {text}")
            case 403:
                return DeniedError(right, message)
            case 404:
                return MissingError(message)
        kind = RefusedError if 400 <= status < 500 and status != _REQUEST_TIMEOUT else PluginError
        return kind(f"{self._server}: {status}: {message}; try again")


_CHECK = "check the cluster, --context and --kubeconfig"


def connect(options: argparse.Namespace) -> Connection:
    """Return a connection for the options of the command line. Raises PluginError."""
    settings = client.Configuration()
    try:
        path = options.kubeconfig or os.environ.get("KUBECONFIG")  # the client reads it only once
        namespace = _configure(settings, path, options.context)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        action = "set KUBECONFIG, or --kubeconfig and --context"
        text = f"{path or 'kubeconfig'}: {_problem(error)}; {action}"
        raise PluginError(text, PluginExit.USAGE) from error
    settings.retries = False  # the first error counts
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user's choice, as for kubectl
    settings.connection_pool_maxsize = _CONNECTIONS
    return Connection(client.ApiClient(settings), options.namespace or namespace)


def contexts(path: str | None) -> list[str]:
    """Return the names of the contexts of a kubeconfig; empty if it cannot be read."""
    try:
        found, _ = config.list_kube_config_contexts(config_file=path or os.environ.get("KUBECONFIG"))
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError):
        return []
    return [str(each["name"]) for each in found]


def _configure(settings: client.Configuration, path: str | None, name: str | None) -> str:
    """Read the kubeconfig or, inside a pod, the service account. Return the namespace of the context."""
    try:
        contexts, active = config.list_kube_config_contexts(config_file=path)
    except config.ConfigException:
        if path or name or not _SERVICE_ACCOUNT.is_dir():
            raise
        config.load_incluster_config(settings)
        return (_SERVICE_ACCOUNT / "namespace").read_text()
    context = next((each for each in contexts if each["name"] == name), None) if name else active
    if not context:
        raise config.ConfigException(f"has no context {name}")
    with _logged_errors_raised():
        config.load_kube_config(config_file=path, context=name, client_configuration=settings)
    if not settings.host.startswith(("http://", "https://")):
        raise config.ConfigException("the server must start with https://")
    return context["context"].get("namespace") or "default"


class _Raise(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise config.ConfigException(record.getMessage())


@contextmanager
def _logged_errors_raised() -> Iterator[None]:
    """Raise the failure of a credential plugin: the client only logs it, and has then no credentials."""
    root, handler = logging.getLogger(), _Raise(logging.ERROR)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _problem(error: Exception) -> str:
    """Return the problem of a kubeconfig, without content of the file: it can have credentials."""
    match error:
        case config.ConfigException():
            text = re.split(r"/?\{|/\[", str(error))[0]
            return " ".join(text.rstrip(". ").split()).replace(*_NO_CLUSTER)
        case OSError():
            return f"{error.filename or 'file'}: {error.strerror}"
    return "is not a valid kubeconfig"


def _right(verb: str, kind: Kind, namespace: str) -> str:
    if not kind.namespaced:
        return f"{verb} {kind} (cluster-scoped)"
    return f"{verb} {kind} in {f'namespace {namespace}' if namespace else 'all namespaces'}"


def _unknown_kind(kind: Kind) -> str:
    action = "install the chart of tokenbucket" if kind.group == POLICIES.group else _CHECK
    return f"API server: does not know {kind}; {action}"


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace").strip() or "no message"


def _parsed(content: bytes, server: str) -> Document:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise PluginError(f"{server}: answer is not JSON; {_CHECK}") from error
    if not isinstance(document, dict):
        raise PluginError(f"{server}: answer is not an object; {_CHECK}")
    return document


def _cause(error: BaseException) -> str:
    """Return the innermost cause: the client wraps it several times."""
    while inner := error.__cause__ or error.__context__ or getattr(error, "reason", None):
        if not isinstance(inner, BaseException):
            break
        error = inner
    return (getattr(error, "strerror", None) or str(error)).partition("\n")[0].rstrip(".")
