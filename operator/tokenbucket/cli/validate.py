"""Define ``tokenbucket validate``, which checks documents by the rules of the agent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokenbucket.core.api.policy import Limit, Policy
from tokenbucket.core.limits.bucket import action_of, as_declared
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.errors import ExitCode
from tokenbucket.manifests import Manifests, parse_text


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "check files of policies and pods"
    verb = verbs.add_parser("validate", help=text, description=f"{text}; '-' is standard input")
    verb.add_argument("files", nargs="+", metavar="FILE")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Print the limits of each policy, and each error."""
    invalid = False
    for name in options.files:
        manifests = _read(name)
        for policy in manifests.policies:
            print(f"TokenBucketPolicy {policy}: {in_words(policy)}")
        for pod in manifests.pods:
            print(f"Pod {pod.id}: ok")
        for error in manifests.errors:
            print(error, file=sys.stderr)
        invalid = invalid or bool(manifests.errors)
    return ExitCode.INVALID if invalid else ExitCode.DONE


def in_words(policy: Policy) -> str:
    """Return the limits of a policy with all defaults."""
    limits = (f"{direction} {_limit_in_words(limit, policy)}" for direction, limit in policy.limits.items())
    return "; ".join(limits)


def _limit_in_words(limit: Limit, policy: Policy) -> str:
    words = as_declared(limit, policy.mode)
    return words if action_of(limit) is limit.exceed_action else f"{words} ({Reason.UNBOUNDED_QUEUE})"


def _read(name: str) -> Manifests:
    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        return Manifests(errors=(f"{name}: {error.strerror}",))
    return parse_text(text, name)
