"""Define ``kubectl tokenbucket suggest``, which suggests a policy from the traffic that Observe has seen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tokenbucket.core.api.policy import Direction, ExceedAction
from tokenbucket.core.limits.offered_report import OfferedReport
from tokenbucket.core.limits.suggestion import (
    LEAST_ACTIVE_S,
    Suggestion,
    TooLittleDataError,
    suggest,
)
from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import LiveClient, add_service_option, find_service
from tokenbucket.plugin.options import positive, within

Offered = Mapping[Direction, Mapping[str, OfferedReport]]
"""Records by direction and pod."""
_MOST_PERCENT = 0.1
_TIMEOUT_S = 10.0


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "suggest a policy from the traffic that agents recorded in mode Observe"
    output = "Without -o, prints a manifest for kubectl; -o yaml adds the reasons and is not a manifest."
    command = commands.add_parser("suggest", help=text, description=f"{text}. {output}", parents=[shared])
    command.add_argument("pods", metavar="SELECTOR", help="labels of the pods, such as app=web")
    command.add_argument("--name", help="name of the policy (default: follows from SELECTOR and --direction)")
    command.add_argument(
        "--action", type=ExceedAction, choices=[ExceedAction.DROP, ExceedAction.DELAY],
        default=ExceedAction.DROP,
        help="enforcement action for excess packets (default %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--direction", type=Direction, choices=list(Direction), help="one direction (default: both)"
    )
    command.add_argument(
        "--most", type=within(0, 100), default=_MOST_PERCENT, metavar="PERCENT",
        help="largest acceptable share of dropped bytes; a smaller share needs a larger burst"
        " (default %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--min-seconds", type=positive, default=LEAST_ACTIVE_S, metavar="S",
        help="required number of observed seconds with traffic (default %(default)s)",
    )  # fmt: skip
    add_service_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the policy, with the reasoning as comments. Raises PluginError."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.label_selector import pod_selector
    from tokenbucket.plugin.offered_traffic import offered_to
    from tokenbucket.plugin.suggested_policy import name_of, policy_of

    selector = pod_selector(options.pods)
    connection = connect(options)
    client = LiveClient(connection, find_service(options.live_service, connection))
    offered, problems = offered_to(connection, client, options.pods, _TIMEOUT_S)
    suggestions, omitted = suggestions_of(offered, options)
    if not suggestions:
        raise _without_any(omitted, problems, has_answers=any(offered.values()))
    name = options.name or name_of(selector, options.direction)
    policy = policy_of(connection.namespace, name, selector, suggestions)
    _print(policy, suggestions, omitted, problems, options)
    return PluginExit.UNKNOWN if problems else PluginExit.DONE


def _without_any(
    omitted: Mapping[Direction, str], problems: Sequence[str], *, has_answers: bool
) -> PluginError:
    """Print the nodes without an answer: more data may be there. Return the error."""
    from tokenbucket.plugin.screen import plain

    for problem in problems:
        print(f"not considered: {plain(problem)}", file=sys.stderr)
    if problems and not has_answers:
        return PluginError("traffic: not known without these nodes; correct this first", PluginExit.UNKNOWN)
    reasons = [f"{each} traffic: {why}" for each, why in omitted.items()]
    if len(set(omitted.values())) == 1:
        reasons = [f"traffic: {next(iter(omitted.values()))}"]
    return PluginError("; ".join(reasons), PluginExit.UNKNOWN if problems else PluginExit.FAILED)


def suggestions_of(
    offered: Offered, options: argparse.Namespace
) -> tuple[dict[Direction, Suggestion], dict[Direction, str]]:
    """Return the suggestions of the directions with enough data, and why the others have none."""
    found: dict[Direction, Suggestion] = {}
    omitted: dict[Direction, str] = {}
    for direction in [options.direction] if options.direction else list(Direction):
        try:
            found[direction] = suggest(
                offered.get(direction, {}),
                options.action,
                most_rejected=options.most / 100,
                least_active_s=options.min_seconds,
            )
        except TooLittleDataError as error:
            omitted[direction] = str(error)
    return found, omitted


def _print(
    policy: dict[str, Any],
    suggestions: Mapping[Direction, Suggestion],
    omitted: Mapping[Direction, str],
    problems: Sequence[str],
    options: argparse.Namespace,
) -> None:
    import yaml

    from tokenbucket.plugin.screen import plain, print_structured
    from tokenbucket.plugin.suggested_policy import as_document, reasoning

    if options.output.is_structured:
        document = {
            "version": 1,
            "policy": policy,
            "reasoning": {each.value: as_document(found) for each, found in suggestions.items()},
            "notSuggested": {each.value: why for each, why in omitted.items()},
            "problems": list(problems),
        }
        print_structured(document, options.output)
        return
    for direction, found in suggestions.items():
        for line in reasoning(direction, found):
            print(f"# {plain(line)}")
    for direction, why in omitted.items():
        print(f"# {direction.value}: not suggested: {plain(why)}")
    for problem in problems:
        print(f"# not considered: {plain(problem)}")
    print(yaml.safe_dump(policy, sort_keys=False).rstrip())
