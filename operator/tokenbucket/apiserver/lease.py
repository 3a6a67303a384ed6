"""Elect one leader among the controllers of a cluster, with a Lease.

The Lease has the same name and namespace for all releases, so that two releases do not fight over statuses.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tokenbucket.apiserver.client import CONFLICT, NOT_FOUND, Client
from tokenbucket.apiserver.resources import Resource, metadata_of
from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases")
NAMESPACE, NAME = "kube-system", "tokenbucket-controller"
_DURATION_S = 15.0
"""A Lease that its holder has not renewed for this time can be taken."""
_DEADLINE_S = 10.0
"""A leader that could not renew the Lease for this time does not lead any more. Shorter than the duration."""
_RETRY_S = 2.0


@dataclass(slots=True)
class Election:
    """The part of one process in the election."""

    identity: str
    """Namespace and name of the pod."""
    changed: Callable[[], None] = lambda: None
    """Called when this process becomes the leader."""
    clock: Callable[[], float] = time.monotonic
    holder: str = ""
    """The current holder of the Lease."""
    _renewed_at: float = float("-inf")
    _seen: tuple[str, float] = field(default=("", float("-inf")))
    """Version of the Lease, and the time at which this process first saw it, because clocks can differ."""

    @property
    def leads(self) -> bool:
        """Return whether this process is the leader."""
        return self.clock() - self._renewed_at < _DEADLINE_S

    async def run(self, client: Client) -> None:
        """Take the Lease when it is free and renew it, until it is canceled."""
        while True:
            led, holder = self.leads, self.holder
            try:
                await self.step(client)
            except ApiError as error:
                log.warning("lease not renewed", extra={"error": str(error)})
            if self.leads != led:
                log.info("leader" if self.leads else "not the leader", extra={"holder": self.holder})
            if self.leads and not led:
                self.changed()
            if self.holder != holder and _release_of(self.holder) != _release_of(self.identity):
                log.warning(
                    "another release leads; uninstall one of the releases", extra={"holder": self.holder}
                )
            await asyncio.sleep(_RETRY_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def step(self, client: Client) -> None:
        """Look at the Lease once, and take or renew it if possible. Raises ApiError."""
        now = self.clock()
        lease = await self._read(client)
        version, spec = str(metadata_of(lease).get("resourceVersion") or ""), lease.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        if version != self._seen[0]:
            self._seen = version, now
        if self.holder not in {"", self.identity} and now - self._seen[1] < _DURATION_S:
            return
        try:
            await self._write(client, lease, self._renewed(spec))
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            return  # another process was faster
        self.holder, self._renewed_at = self.identity, now

    async def release(self, client: Client) -> None:
        """Free the Lease, so that the next leader need not wait. Raises ApiError."""
        lease = await self._read(client)
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") == self.identity:
            self._renewed_at = float("-inf")
            await self._write(client, lease, {**spec, "holderIdentity": ""})

    def _renewed(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken = spec.get("holderIdentity") != self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(_DURATION_S),
            "acquireTime": now if taken else spec.get("acquireTime") or now,
            "renewTime": now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + taken,
        }

    async def _read(self, client: Client) -> dict[str, Any]:
        """Return the Lease; an empty mapping if it does not exist."""
        try:
            return await client.get(LEASES, NAME, NAMESPACE)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return {}

    async def _write(self, client: Client, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        if not lease:
            metadata = {"name": NAME, "namespace": NAMESPACE}
            await client.create(LEASES, NAMESPACE, {**kind, "metadata": metadata, "spec": spec})
        else:
            await client.replace(LEASES, {**kind, "metadata": lease["metadata"], "spec": spec})


def _release_of(identity: str) -> str:
    return identity.partition("/")[0]
