"""The image of test pods on the cluster."""

from __future__ import annotations

import os

from .images import CLIENT_TAG


def client_image() -> dict[str, str]:
    """Return the image fields of a container: ``$TOKENBUCKET_E2E_CLIENT_IMAGE``, or that of the nodes."""
    named = os.environ.get("TOKENBUCKET_E2E_CLIENT_IMAGE")
    return {"image": named or CLIENT_TAG, "imagePullPolicy": "Always" if named else "Never"}
