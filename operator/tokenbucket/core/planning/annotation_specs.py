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
ALSO_LIMITED = Spec(
    Effect.DEGRADED,
    cause=(
        "Another component also limits the pod: the bandwidth plugin of CNI, Calico, or Cilium. The lower "
        "rate applies, and packets can wait twice. The limit runs."
    ),
    fix=(
        "Let only one component limit the pod: remove the bandwidth plugin from the CNI configuration and "
        "create the pod again, turn Cilium's bandwidth manager off, or remove the annotations."
    ),
    short="also limited by another component",
)
