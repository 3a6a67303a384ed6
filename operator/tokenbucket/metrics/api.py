"""Define the metrics of requests to the API server, for agent and controller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tokenbucket.metrics.measure import Measure, Sample


class _WithRequests(Protocol):
    @property
    def api_requests(self) -> Mapping[tuple[str, int], int]: ...


def _requests(reading: _WithRequests) -> Iterator[Sample]:
    return (
        ((method, str(status or "none")), count)
        for (method, status), count in sorted(reading.api_requests.items())
    )


API_REQUESTS: Measure[Any] = Measure(
    "tokenbucket_api_requests_total",
    "Requests to the Kubernetes API, by method and status code; `none` without a response.",
    ("method", "code"),
    _requests,
)
