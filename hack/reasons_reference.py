"""Write docs/reference/reasons.md from the members of ``Reason``."""

from __future__ import annotations

from pathlib import Path

from tokenbucket.core.planning.reasons import Effect, Reason

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "reasons.md"
HEAD = """\
<!-- Written by 'make generate'. -->

# Reasons

A limit that is not enforced as declared has one of these reasons.
A policy shows them in the condition `Degraded` and in the message of the condition `Programmed`.
A [TokenBucketNode](node.md) shows them in `status.policies` and `status.pods`.
The log of the agent and the label `reason` of [metrics](metrics.md) contain them too.

The agent logs `limit not enforced as declared` when a limit gets a reason,
and `reason no longer applies` when the reason ends.
"""
EFFECTS = {
    Effect.PENDING: "Pending: the limit is not enforced yet. No manual action is needed.",
    Effect.DEGRADED: "Degraded: the rate is enforced, but not as declared.",
    Effect.EXEMPT: "Exempt: limits do not apply to the pod. The policy is Ready.",
    Effect.FAILED: "Failed: some or all traffic of the pod is not limited. Manual action is needed.",
}


def overview() -> str:
    """Return the table of all reasons."""
    rows = [f"| [`{reason}`](#{reason.lower()}) | {reason.effect} |" for reason in Reason]
    return "\n".join(["| reason | effect |", "|---|---|", *rows])


def section(reason: Reason) -> str:
    """Return the section of one reason."""
    return (
        f"## {reason}\n\n{EFFECTS[reason.effect]}\n\n**Cause:** {reason.cause}\n\n**Action:** {reason.fix}\n"
    )


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, overview(), "", *map(section, Reason)]).rstrip() + "\n"


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
