"""Define ``kubectl tokenbucket check``, which shows before an installation what limits nodes can have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tokenbucket import __version__
from tokenbucket.core.status.node_check import Ability, NodeCheck
from tokenbucket.plugin.errors import MissingError, PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.options import positive
from tokenbucket.plugin.resources import CHECK_LABEL

_IMAGE = f"ghcr.io/tokenbucket/tokenbucket:{__version__}"
_STYLES = {
    Ability.DELAY.value: "green",
    Ability.DROP.value: "yellow",
    Ability.NONE.value: "red",
    "unknown": "red",
}


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "before an installation, check which limits can run on the nodes"
    description = (
        f"{text}. A pod with the rights of an agent runs on each node, in the namespace of -n, for up to "
        "--timeout. The namespace must admit host access (pod-security.kubernetes.io/enforce: privileged). "
        "If the command is killed, delete its pods: "
        f"kubectl delete pods -n NAMESPACE -l {CHECK_LABEL}"
    )
    command = commands.add_parser("check", help=text, description=description, parents=[shared])
    command.add_argument("nodes", nargs="*", metavar="NODE", help="nodes (default: all, or those of -l)")
    command.add_argument(
        "--image",
        help=f"image of the pods (default: that of an installed agent, or {_IMAGE})",
    )
    command.add_argument(
        "--timeout",
        type=positive,
        default=180,
        metavar="S",
        help="longest time of a check (default %(default)s s)",
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the result of each node. The exit status is 0 if all nodes can have limits with Delay."""
    from tokenbucket.plugin.check_pods import CheckPods, image_of_agents
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.resources import NODES

    connection = connect(options)
    known = [each["metadata"]["name"] for each in connection.list(NODES, labelSelector=options.selector)]
    missing = sorted(set(options.nodes) - set(known))
    if missing:
        raise MissingError(f"node {missing[0]}: does not exist; see kubectl get nodes")
    image = options.image or image_of_agents(connection) or _IMAGE
    pods = CheckPods(connection, connection.namespace, image, options.timeout)
    results = sorted(pods.results(options.nodes or known), key=lambda result: result.node)
    if not results:
        raise PluginError("nodes: none is selected; change the selector", PluginExit.NOT_FOUND)
    _print(results, options)
    return _exit_of(results)


def _print(results: Sequence[NodeCheck], options: argparse.Namespace) -> None:
    from tokenbucket.plugin.options import Output
    from tokenbucket.plugin.screen import console, print_structured, table

    if options.output.is_structured:
        print_structured({"nodes": [result.as_document() for result in results]}, options.output)
        return
    screen = console(options)
    if options.output is Output.WIDE:
        found = [(result.node, each) for result in results for each in result.findings]
        rows = [[node, each.part, each.state, each.detail, each.action or "-"] for node, each in found]
        screen.print(table(["NODE", "PART", "RESULT", "DETAIL", "NEXT STEP"], rows, _STYLES))
    else:
        rows = [row for result in results for row in _rows(result)]
        screen.print(table(["NODE", "BEST LIMIT", "CAUSE AND NEXT STEP"], rows, _STYLES))


def _rows(result: NodeCheck) -> list[list[str]]:
    """Return a row for each problem of a node."""
    problems = [str(problem) for problem in result.problems] or ["-"]
    names = [[result.node, result.ability.value], *([["", ""]] * (len(problems) - 1))]
    return [[*name, problem] for name, problem in zip(names, problems, strict=True)]


def _exit_of(results: Sequence[NodeCheck]) -> PluginExit:
    abilities = {result.ability for result in results}
    if Ability.UNKNOWN in abilities:
        return PluginExit.UNKNOWN
    return PluginExit.DONE if abilities == {Ability.DELAY} else PluginExit.DEVIATES
