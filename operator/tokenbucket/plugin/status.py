"""Define ``kubectl tokenbucket status``, which shows policies, their nodes and deviating pods as a tree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenbucket.plugin.errors import DeniedError, MissingError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import add_service_option
from tokenbucket.plugin.options import Output
from tokenbucket.plugin.resources import NAMESPACES, POLICIES

if TYPE_CHECKING:
    from tokenbucket.plugin.connection import Connection, Document


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "show policies, their nodes, and the pods that are not limited as declared"
    command = commands.add_parser("status", help=text, description=text, parents=[shared])
    command.add_argument("policy", nargs="?", metavar="POLICY", help="name of a policy (default: all)")
    add_service_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the tree, and return whether all policies are enforced as declared."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.pod_states import annotated, worst_code
    from tokenbucket.plugin.policy_screen import annotations_tree, tree_of
    from tokenbucket.plugin.policy_tree import branches, documents
    from tokenbucket.plugin.screen import console, print_line, print_structured
    from tokenbucket.plugin.status_pods import Collector

    connection = connect(options)
    policies = _policies(connection, options)
    reader = Collector(connection, options)
    explanations = reader.explanations(policies)
    without_reports = explanations if reader.reports is None else ()
    found = branches(policies, reader.reports or (), connection.now, without_reports)
    pods = () if options.policy or options.selector else annotated(explanations)
    if options.output.is_structured:
        named = {"policies": documents(found), "annotatedPods": [each.to_document() for each in pods]}
        print_structured({"version": 1, **named, "missingRights": list(reader.gaps)}, options.output)
    else:
        screen = console(options)
        for branch in found:
            screen.print(tree_of(branch, wide=options.output is Output.WIDE))
        if pods:
            screen.print(annotations_tree(pods))
        if not found:
            print_line(screen, f"no TokenBucketPolicy {_where(connection, options)}", indent=0)
        for gap in reader.gaps:
            print_line(screen, f"the right to {gap} is missing", indent=0, style="yellow")
    return _exit_code(
        [*(each.exit_code for each in found), *([worst_code(pods)] if pods else [])], unknown=reader.is_blind
    )


def _where(connection: Connection, options: argparse.Namespace) -> str:
    """Return where there is no policy."""
    where = "in any namespace" if options.all_namespaces else f"in namespace {connection.namespace}"
    return f"with labels {options.selector} {where}" if options.selector else where


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


def _exit_code(found: Sequence[PluginExit], *, unknown: bool) -> PluginExit:
    if PluginExit.DEVIATES in found:
        return PluginExit.DEVIATES
    if unknown or PluginExit.UNKNOWN in found:
        return PluginExit.UNKNOWN
    return PluginExit.DONE if PluginExit.DONE in found else PluginExit.NOT_LIMITED
