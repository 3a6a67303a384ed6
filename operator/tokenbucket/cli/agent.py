"""Define ``tokenbucket agent``, which enforces limits. The limits stay active when the agent stops."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tokenbucket.agent.options import AgentOptions, DataPathOptions, LiveOptions, MetricsOptions
from tokenbucket.agent.run import Served, run_in_cluster, run_standalone
from tokenbucket.bpf.pins import DEFAULT_PEERS, DEFAULT_SLOTS, Sizes
from tokenbucket.cli.options import (
    address,
    attach_option,
    cni_results_option,
    log_options,
    metrics_options,
    need_root,
    pins_options,
    protection_options,
)
from tokenbucket.cli.output import set_up_logs
from tokenbucket.errors import ExitCode

_MAX_SLOTS = 1 << 16
_PEERS = (1 << 10, 1 << 22)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "limit the pods of this machine"
    verb = verbs.add_parser(
        "agent",
        help=text,
        description=text,
        parents=[pins_options(), log_options(), metrics_options(), protection_options()],
    )
    source = verb.add_mutually_exclusive_group()
    source.add_argument(
        "--manifests", type=Path, metavar="DIR", help="without a cluster: directory with policies and pods"
    )
    source.add_argument(
        "--node",
        default=os.environ.get("NODE_NAME"),
        metavar="NAME",
        help="in a cluster: name of this node (default $NODE_NAME)",
    )
    verb.add_argument(
        "--slots",
        type=_slots,
        default=DEFAULT_SLOTS,
        help="maximum number of limits on this node (default %(default)s)",
    )
    verb.add_argument(
        "--peers",
        type=_peers,
        default=DEFAULT_PEERS,
        help="maximum number of tracked peers, over all limits (default %(default)s)",
    )
    attach_option(verb)
    verb.add_argument(
        "--bandwidth-annotations",
        action="store_true",
        help="limit pods without a policy by their annotations kubernetes.io/*-bandwidth and "
        "qos.projectcalico.org/*",
    )
    verb.add_argument(
        "--no-pod-metrics",
        dest="pod_metrics",
        action="store_false",
        help="with --metrics-address: export sums per policy instead of metrics of each pod",
    )
    verb.add_argument(
        "--live-address",
        type=address,
        metavar="HOST:PORT",
        help="serve live figures of pods at this address, to clients that know their uids (default: none)",
    )
    _add_cluster_options(verb.add_argument_group("in a cluster"))
    verb.set_defaults(run=run)


def _add_cluster_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--enforcement-configmap",
        default="tokenbucket",
        metavar="NAME",
        help="ConfigMap in $POD_NAMESPACE that sets the enforcement mode (default %(default)s)",
    )
    group.add_argument(
        "--readiness-gates",
        action="store_true",
        help="set the condition of pods that list the readiness gate",
    )
    group.add_argument(
        "--remove-taint",
        action="store_true",
        help="remove the taint tokenbucket.dev/agent-not-ready from the node after the first reconcile run",
    )
    group.add_argument(
        "--start-jitter",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="if limits are already active: maximum random delay before the first watch; 0 derives it "
        "from the number of nodes (default: 0)",
    )
    group.add_argument(
        "--report-spread",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="maximum delay of a report (default 0: derived from the number of nodes)",
    )
    group.add_argument(
        "--probe-address",
        type=address,
        default=address("127.0.0.1:10473"),
        metavar="HOST:PORT",
        help="address of /healthz and /readyz (default 127.0.0.1:10473)",
    )
    cni_results_option(group)


def run(options: argparse.Namespace) -> ExitCode:
    """Run the agent in the foreground."""
    need_root()
    set_up_logs(options.log_format, options.log_level)
    if options.manifests:
        run_standalone(
            options.manifests,
            _data_path(options),
            _served(options),
            annotations=options.bandwidth_annotations,
        )
    elif options.node:
        _run_in_cluster(options)
    else:
        raise SystemExit("tokenbucket agent: no source of policies; use --manifests DIR or --node NAME")
    return ExitCode.DONE


def _served(options: argparse.Namespace) -> Served:
    metrics, live = None, None
    if options.metrics_address:
        host, port = options.metrics_address
        metrics = MetricsOptions(host, port, options.metrics_tls, options.pod_metrics)
    if options.live_address:
        host, port = options.live_address
        live = LiveOptions(host, port)
    return Served(metrics, live)


def _run_in_cluster(options: argparse.Namespace) -> None:
    host, port = options.probe_address
    settings = AgentOptions(
        node=options.node,
        namespace=os.environ.get("POD_NAMESPACE", "default"),
        pod=os.environ.get("POD_NAME", ""),
        config_map=options.enforcement_configmap,
        protected=frozenset(options.protected_namespace),
        readiness_gates=options.readiness_gates,
        bandwidth_annotations=options.bandwidth_annotations,
        remove_taint=options.remove_taint,
        start_jitter_s=options.start_jitter if options.pins.last_build() else None,
        report_spread_s=options.report_spread,
        probe_host=host,
        probe_port=port,
        cni_results=options.cni_results,
    )
    run_in_cluster(settings, _data_path(options), _served(options))


def _slots(text: str) -> int:
    slots = int(text)
    if not 2 <= slots <= _MAX_SLOTS:
        raise argparse.ArgumentTypeError(f"{slots}: must be from 2 to {_MAX_SLOTS}")
    return slots


def _peers(text: str) -> int:
    peers = int(text)
    if not _PEERS[0] <= peers <= _PEERS[1]:
        raise argparse.ArgumentTypeError(f"{peers}: must be from {_PEERS[0]} to {_PEERS[1]}")
    return peers


def _data_path(options: argparse.Namespace) -> DataPathOptions:
    return DataPathOptions(options.pins, Sizes(options.slots, options.peers), options.attach)
