"""The image of test pods, as whichever cluster there is has it."""

from __future__ import annotations

import os

from .images import CLIENT_TAG


def client_image() -> dict[str, str]:
    """Fields of a container: the image that ``$TOKENBUCKET_E2E_CLIENT_IMAGE`` names, pulled each time since
    somebody may have pushed it anew; otherwise the one that the nodes were given.
    """
    named = os.environ.get("TOKENBUCKET_E2E_CLIENT_IMAGE")
    return {"image": named or CLIENT_TAG, "imagePullPolicy": "Always" if named else "Never"}
