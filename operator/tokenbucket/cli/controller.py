"""Define ``tokenbucket controller``, which writes the status of policies."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from contextlib import ExitStack

from tokenbucket.cli.options import address, log_options, metrics_options, protection_options
from tokenbucket.cli.output import set_up_logs
from tokenbucket.errors import ExitCode


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "write the status of policies, in a cluster"
    parents = [log_options(), metrics_options(), protection_options()]
    verb = verbs.add_parser("controller", help=text, description=text, parents=parents)
    verb.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", "default"),
        metavar="NAME",
        help="namespace of the agents (default $POD_NAMESPACE)",
    )
    verb.add_argument(
        "--pod",
        default=os.environ.get("POD_NAME") or socket.gethostname(),
        metavar="NAME",
        help="name of this replica in the election of a leader (default $POD_NAME, or the host name)",
    )
    verb.add_argument(
        "--agents",
        default="app.kubernetes.io/name=tokenbucket,app.kubernetes.io/component=agent",
        metavar="SELECTOR",
        help="label selector of the agent pods (default %(default)s)",
    )
    verb.add_argument(
        "--probe-address",
        type=address,
        default=address(":10474"),
        metavar="HOST:PORT",
        help="address of /healthz and /readyz (default :10474, all addresses)",
    )
    verb.add_argument(
        "--live-address",
        type=address,
        metavar="HOST:PORT",
        help="relay requests for live figures to the agents, at this address (default: no relay)",
    )
    verb.add_argument(
        "--agent-live-port",
        type=int,
        default=10477,
        metavar="PORT",
        help="port of the live figures on the nodes (default %(default)s)",
    )
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Run the controller in the foreground."""
    from tokenbucket.controller.run import Controller, ControllerOptions  # noqa: PLC0415 - kopf is large

    set_up_logs(options.log_format, options.log_level)
    host, port = options.probe_address
    protected = frozenset(options.protected_namespace)
    controller = Controller(
        ControllerOptions(
            options.namespace,
            options.pod,
            options.agents,
            host,
            port,
            options.live_address,
            options.agent_live_port,
            protected,
        )
    )
    with ExitStack() as stack:
        if options.metrics_address:
            from tokenbucket.controller.metrics import serve  # noqa: PLC0415
            from tokenbucket.metrics import Endpoint  # noqa: PLC0415

            host, port = options.metrics_address
            stack.enter_context(serve(Endpoint(host, port, options.metrics_tls), controller))
        asyncio.run(controller.run())
    return ExitCode.DONE
