"""Define ``kubectl tokenbucket status``, which shows policies, their nodes and deviating pods as a tree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenbucket.plugin.errors import DeniedError, MissingError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.options import Output
from tokenbucket.plugin.resources import NAMESPACES, POLICIES, REPORTS

if TYPE_CHECKING:
    from tokenbucket.plugin.connection import Connection, Document
    from tokenbucket.plugin.policy_tree import PolicyBranch


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "show policies, their nodes, and the pods that are not limited as declared"
    command = commands.add_parser("status", help=text, description=text, parents=[shared])
    command.add_argument("policy", nargs="?", metavar="POLICY", help="name of a policy (default: all)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the tree, and return whether all policies are enforced as declared."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.policy_screen import tree_of
    from tokenbucket.plugin.policy_tree import branches, documents
    from tokenbucket.plugin.screen import console, print_line, print_structured

    connection = connect(options)
    policies = _policies(connection, options)
    reports, gap = _reports(connection)
    found = branches(policies, reports, connection.now)
    if options.output.is_structured:
        missing = {"missingRights": [gap] if gap else []}
        print_structured({"version": 1, "policies": documents(found), **missing}, options.output)
    else:
        screen = console(options)
        for branch in found:
            screen.print(tree_of(branch, wide=options.output is Output.WIDE))
        if not found:
            print_line(screen, "no TokenBucketPolicy found", indent=0)
        if gap:
            print_line(
                screen, f"nodes are not shown: the right to {gap} is missing", indent=0, style="yellow"
            )
    return _exit_code(found, gap)


def _policies(connection: Connection, options: argparse.Namespace) -> list[Document]:
    if options.policy:
        return [connection.get(POLICIES, options.policy, connection.namespace)]
    namespace = "" if options.all_namespaces else connection.namespace
    found = connection.list(POLICIES, namespace, labelSelector=options.selector)
    if namespace and not found:
        _check_exists(connection, namespace)
    return found


def _check_exists(connection: Connection, namespace: str) -> None:
    """Raise MissingError if there is no such namespace: the list of its policies is only empty."""
    try:
        connection.get(NAMESPACES, namespace)
    except MissingError:
        raise MissingError(f"namespace {namespace}: does not exist; check -n and --context") from None
    except DeniedError:
        return


def _reports(connection: Connection) -> tuple[list[Document], str]:
    """Return the reports of all nodes, or the missing right."""
    try:
        return connection.list(REPORTS), ""
    except DeniedError as error:
        return [], error.right


def _exit_code(found: Sequence[PolicyBranch], gap: str) -> PluginExit:
    codes = {branch.exit_code for branch in found}
    if PluginExit.DEVIATES in codes:
        return PluginExit.DEVIATES
    if gap or PluginExit.UNKNOWN in codes:
        return PluginExit.UNKNOWN
    return PluginExit.DONE if PluginExit.DONE in codes else PluginExit.NOT_LIMITED
