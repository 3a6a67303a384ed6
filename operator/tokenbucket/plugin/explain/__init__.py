"""Define ``kubectl tokenbucket explain pod``, which shows the limits of a pod and their causes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import add_service_option
from tokenbucket.plugin.options import Output
from tokenbucket.plugin.resources import PODS

if TYPE_CHECKING:
    from tokenbucket.plugin.connection import Connection
    from tokenbucket.plugin.explain.sources import Address


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "show which policies select a pod, whether they are enforced as declared, and why not"
    command = commands.add_parser("explain", help=text, description=text, parents=[shared])
    command.add_argument("kind", choices=["pod"], metavar="pod")
    command.add_argument("name", metavar="NAME", help="name of the pod; pod/NAME also works")
    command.add_argument(
        "--from",
        dest="source",
        metavar="IP|POD",
        help="also show the bucket of the traffic with this address or pod ([NAMESPACE/]NAME)",
    )
    add_service_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the explanation, and return whether the pod is limited as declared."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.explain.collect import Collector
    from tokenbucket.plugin.explain.explanation import document, explain
    from tokenbucket.plugin.explain.live_evidence import with_live
    from tokenbucket.plugin.explain.screen import show
    from tokenbucket.plugin.explain.sources import of_source
    from tokenbucket.plugin.screen import console, print_structured

    connection = connect(options)
    source = _addresses(connection, options.source) if options.source else ()
    found = Collector(connection).of(connection.namespace, options.name, with_node=bool(source))
    found = with_live(found, connection, options.live_service)
    explanation = explain(found)
    lines = of_source(explanation, source) if source else []
    if options.output.is_structured:
        print_structured(document(explanation) | ({"source": lines} if source else {}), options.output)
    else:
        show(explanation, console(options), lines, wide=options.output is Output.WIDE)
    return explanation.state.exit_code


def _addresses(connection: Connection, source: str) -> tuple[Address, ...]:
    """Return the address, or the addresses of the pod, that ``--from`` names. Raises PluginError."""
    from tokenbucket.core.api.parse import parse_pod
    from tokenbucket.plugin.explain.sources import address_of

    if address := address_of(source):
        return (address,)
    namespace, _, name = source.rpartition("/")
    document = connection.get(PODS, name, namespace or connection.namespace)
    pod = parse_pod({**document, "kind": "Pod"})
    if not pod.addresses:
        raise PluginError(f"pod {pod.id}: has no address; wait, or name an address")
    return tuple(sorted(pod.addresses, key=lambda each: (each.version, each)))
