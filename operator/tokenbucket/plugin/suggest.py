"""Define ``kubectl tokenbucket suggest``, which suggests a policy from the traffic that Observe has seen."""

from __future__ import annotations

import argparse
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
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import LiveClient, add_service_option, find_service

Offered = Mapping[Direction, Mapping[str, OfferedReport]]
"""Records by direction and pod."""
_MOST_PERCENT = 0.1
_TIMEOUT_S = 10.0


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "suggest a policy from the traffic that a policy in mode Observe has seen"
    command = commands.add_parser("suggest", help=text, description=text, parents=[shared])
    command.add_argument("pods", metavar="SELECTOR", help="labels of the pods, such as app=web")
    command.add_argument("--name", default="suggested", help="name of the policy (default %(default)s)")
    command.add_argument(
        "--action", type=ExceedAction, choices=[ExceedAction.DROP, ExceedAction.DELAY],
        default=ExceedAction.DROP,
        help="what happens to excess packets (default %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--direction", type=Direction, choices=list(Direction), help="one direction (default: both)"
    )
    command.add_argument(
        "--most", type=float, default=_MOST_PERCENT, metavar="PERCENT",
        help="choose a larger burst if more of the bytes would be dropped (default %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--min-seconds", type=int, default=LEAST_ACTIVE_S, metavar="S",
        help="refuse with fewer observed seconds with traffic (default %(default)s)",
    )  # fmt: skip
    add_service_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the policy, with the reasoning as comments. Raises TooLittleDataError."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.label_selector import pod_selector
    from tokenbucket.plugin.offered_traffic import offered_to
    from tokenbucket.plugin.suggested_policy import policy_of

    selector = pod_selector(options.pods)
    connection = connect(options)
    client = LiveClient(connection, find_service(options.live_service, connection))
    offered, problems = offered_to(connection, client, options.pods, _TIMEOUT_S)
    suggestions = suggestions_of(offered, options)
    policy = policy_of(connection.namespace, options.name, selector, suggestions)
    _print(policy, suggestions, problems, options)
    return PluginExit.UNKNOWN if problems else PluginExit.DONE


def suggestions_of(offered: Offered, options: argparse.Namespace) -> dict[Direction, Suggestion]:
    """Return the suggestions of the directions with enough data. Raises TooLittleDataError without any."""
    found: dict[Direction, Suggestion] = {}
    wanted = [options.direction] if options.direction else list(Direction)
    error: TooLittleDataError | None = None
    for direction in wanted:
        try:
            found[direction] = suggest(
                offered.get(direction, {}),
                options.action,
                most_rejected=options.most / 100,
                least_active_s=options.min_seconds,
            )
        except TooLittleDataError as failed:
            error = error or failed
    if error and not found:
        raise error
    return found


def _print(
    policy: dict[str, Any],
    suggestions: Mapping[Direction, Suggestion],
    problems: Sequence[str],
    options: argparse.Namespace,
) -> None:
    import yaml

    from tokenbucket.plugin.screen import plain, print_structured
    from tokenbucket.plugin.suggested_policy import as_document, reasoning

    if options.output.is_structured:
        document = {
            "policy": policy,
            "reasoning": {each.value: as_document(found) for each, found in suggestions.items()},
            "problems": list(problems),
        }
        print_structured(document, options.output)
        return
    for direction, found in suggestions.items():
        for line in reasoning(direction, found):
            print(f"# {plain(line)}")
    for problem in problems:
        print(f"# not considered: {plain(problem)}")
    print(yaml.safe_dump(policy, sort_keys=False).rstrip())
