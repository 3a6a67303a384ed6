"""Define a metric together with the source of its value, and serve metrics for Prometheus.

The documentation is generated from the lists of metrics.
"""

from __future__ import annotations

import enum
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Generic, Protocol, TypeVar
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

from tokenbucket import __version__
from tokenbucket.errors import TokenBucketError

log = logging.getLogger(__name__)

Reading = TypeVar("Reading")
"""Values at one moment, for all metrics of one scrape."""
Sample = tuple[tuple[str, ...], float]
"""Label values, and the value."""
_RETRY_S = 30.0
_CLIENT_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0
_RENEW_S = 3600.0


class Kind(enum.StrEnum):
    """Type of a metric in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Measure(Generic[Reading]):
    """One metric."""

    name: str
    """Exposed name, in base units. The suffix ``_total`` marks a counter."""
    meaning: str
    labels: tuple[str, ...]
    samples: Callable[[Reading], Iterable[Sample]]

    @property
    def kind(self) -> Kind:
        """Return the type, from the name."""
        return Kind.COUNTER if self.name.endswith("_total") else Kind.GAUGE

    def family(self, reading: Reading) -> Metric:
        """Return all samples of the metric."""
        family = Metric(self.name.removesuffix("_total"), self.meaning, self.kind)
        for values, value in self.samples(reading):
            family.add_sample(self.name, dict(zip(self.labels, values, strict=True)), value)
        return family


def single(name: str, meaning: str, value: Callable[[Reading], float | None]) -> Measure[Reading]:
    """Return a metric without labels. There is no sample for ``None``."""

    def samples(reading: Reading) -> list[Sample]:
        found = value(reading)
        return [] if found is None else [((), found)]

    return Measure(name, meaning, (), samples)


class _Histogram(Protocol):
    @property
    def sum(self) -> float: ...

    def buckets(self) -> Sequence[tuple[str, int]]:
        """Return each bound as text, and how many values do not exceed it."""


@dataclass(frozen=True, slots=True)
class _Distribution(Measure[Reading]):
    """One histogram without labels."""

    histogram: Callable[[Reading], _Histogram]

    @property
    def kind(self) -> Kind:
        return Kind.HISTOGRAM

    def family(self, reading: Reading) -> Metric:
        found = self.histogram(reading)
        return HistogramMetricFamily(self.name, self.meaning, buckets=found.buckets(), sum_value=found.sum)


def distribution(name: str, meaning: str, histogram: Callable[[Reading], _Histogram]) -> Measure[Reading]:
    """Return a metric with the samples ``_bucket``, ``_sum`` and ``_count`` of a histogram."""
    return _Distribution(name, meaning, (), lambda _: (), histogram)


class _WithRequests(Protocol):
    @property
    def api_requests(self) -> Mapping[tuple[str, int], int]: ...


def _requests(reading: _WithRequests) -> Iterator[Sample]:
    counts = sorted(reading.api_requests.items())
    return (((method, str(status or "none")), count) for (method, status), count in counts)


BUILD_INFO: Measure[Any] = Measure(
    "tokenbucket_build_info",
    "Always 1; the version of the agent or the controller.",
    ("version",),
    lambda _: [((__version__,), 1)],
)
API_REQUESTS: Measure[Any] = Measure(
    "tokenbucket_api_requests_total",
    "Requests to the Kubernetes API, by method and status code; `none` without a response.",
    ("method", "code"),
    _requests,
)


class _Readings(Collector, Generic[Reading]):
    """Collector that reads once for each scrape, and holds the memory of one scrape at a time."""

    def __init__(self, measures: Iterable[Measure[Reading]], read: Callable[[], Reading]) -> None:
        self._measures = tuple(measures)
        self._read = read
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            reading = self._read()
            for measure in self._measures:
                yield measure.family(reading)


def registry_of(measures: Iterable[Measure[Reading]], read: Callable[[], Reading]) -> CollectorRegistry:
    """Return a registry of these and process metrics. Each scrape calls ``read``, which may raise."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Readings(measures, read))
    return registry


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of the metrics."""

    host: str
    """An empty text means all IPv4 and IPv6 addresses."""
    port: int
    tls: tuple[Path, Path] | None = None
    """PEM files: the certificate chain and its private key."""


@contextmanager
def serving(endpoint: Endpoint, registry: CollectorRegistry) -> Iterator[None]:
    """Serve metrics for the block, in threads of their own. If that fails, log an error and retry."""
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(endpoint, registry, stop), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_STOP_TIMEOUT_S)


def _serve(endpoint: Endpoint, registry: CollectorRegistry, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            server = _Server(endpoint, registry)
        except OSError as error:
            _log_failure(endpoint, error)
            stop.wait(_RETRY_S)
            continue
        thread = threading.Thread(target=server.serve_forever, name="metrics-listener", daemon=True)
        thread.start()
        while not stop.wait(_RENEW_S):
            server.renew_certificate()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


class _Server(ThreadingWSGIServer):
    """The server of prometheus_client, which works while a client stalls and while DNS is unavailable."""

    def __init__(self, endpoint: Endpoint, registry: CollectorRegistry) -> None:
        """Listen. Raises OSError, also for an invalid certificate."""
        every = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - an empty host means this
        host = endpoint.host or every
        self._endpoint = endpoint
        self._tls = _context(endpoint.tls) if endpoint.tls else None
        self.address_family = socket.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, endpoint.port), _Handler)
        self.set_app(_explain_failures(make_wsgi_app(registry)))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Leave the handshake to the thread of the client: it must not block others."""
        connection, address = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def server_bind(self) -> None:
        """Bind without the DNS request of the base class."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def renew_certificate(self) -> None:
        """Read the certificate again: its issuer replaces it before it expires.

        A context in use must not change: handshakes of other threads read it without a lock.
        """
        if self._endpoint.tls:
            try:
                self._tls = _context(self._endpoint.tls)
            except OSError as error:
                _log_failure(self._endpoint, error)

    def handle_error(self, _: object, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Log an error of one client, such as a closed connection, instead of its traceback."""
        log.debug("scrape failed", extra={"client": client_address[0], "error": str(sys.exception())})


def _context(tls: tuple[Path, Path]) -> ssl.SSLContext:
    """Return a context with the certificate. Raises OSError."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(*tls)
    return found


def _log_failure(endpoint: Endpoint, error: OSError) -> None:
    address = f"{endpoint.host}:{endpoint.port}"
    log.error("metrics not served", extra={"address": address, "error": error.strerror or str(error)})


def _explain_failures(scrape: WSGIApplication) -> WSGIApplication:
    """Return a WSGI application that answers 500 with the error text if a reading fails."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return scrape(environ, start_response)
        except TokenBucketError as error:
            log.warning("metrics not served", extra={"error": str(error)})
            start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{error}\n".encode()]

    return answer
