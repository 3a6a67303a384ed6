"""Describe the reasons of limits that annotations declare, for :mod:`tokenbucket.core.planning.reasons`."""

from __future__ import annotations

from tokenbucket.core.planning.effect import Effect, Spec

INVALID = Spec(
    Effect.FAILED,
    cause=(
        "With `agent.bandwidthAnnotations`, an annotation of the pod that declares a limit is not valid. The "
        "valid annotations of the pod are enforced."
    ),
    fix="Correct the annotation that the message names, or select the pod by a policy.",
    needs_slot=False,
)
