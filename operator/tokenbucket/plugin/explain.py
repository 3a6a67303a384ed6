"""Define ``kubectl tokenbucket explain pod``, which shows the limits of one pod."""

from __future__ import annotations

import argparse

from tokenbucket.plugin.exit_codes import PluginExit


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "show which policies select a pod, and whether they are enforced as declared"
    command = commands.add_parser("explain", help=text, description=text, parents=[shared])
    command.add_argument("kind", choices=["pod"], metavar="pod")
    command.add_argument("name", metavar="NAME", help="name of the pod")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the explanation, and return whether the pod is limited as declared."""
    from tokenbucket.core.api.parse import parse_pod, parse_policy
    from tokenbucket.core.planning.precedence import Winners
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.resources import PODS, POLICIES
    from tokenbucket.plugin.screen import console, table

    connection = connect(options)
    policies = [
        parse_policy({**each, "status": None}) for each in connection.list(POLICIES, connection.namespace)
    ]
    pod = parse_pod({**connection.get(PODS, options.name, connection.namespace), "kind": "Pod"})
    winners = Winners(policies).of(pod)
    rows = [[direction.value, policy.name] for direction, policy in winners.items()]
    console(options).print(table(["DIRECTION", "POLICY"], rows, {}))
    return PluginExit.UNKNOWN
