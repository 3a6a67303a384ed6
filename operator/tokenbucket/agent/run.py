"""Compose and run the agent, with a folder of manifests or with the API server as its source."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.agent.executor import Executor
from tokenbucket.agent.loop import Loop, StopSignals
from tokenbucket.agent.observer import Observer
from tokenbucket.agent.offered import OfferedTraffic
from tokenbucket.agent.options import AgentOptions, DataPathOptions, LiveOptions, MetricsOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats, Result
from tokenbucket.agent.reconciler import Reconciler
from tokenbucket.agent.slow_steps import reported
from tokenbucket.agent.source import FolderSource, Source
from tokenbucket.agent.verification import Verifier
from tokenbucket.bpf.load import load_or_keep
from tokenbucket.bpf.locks import InterruptedWaitError, Locks
from tokenbucket.bpf.node_addresses import NodeAddresses
from tokenbucket.bpf.pins import BPFFS, has_bpffs
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import DataPlane
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.status.node_status import DesiredInput
from tokenbucket.errors import UnsupportedError
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.fq import has_fq
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.node.devices import detach_all
from tokenbucket.node.view import View

log = logging.getLogger(__name__)

_ASK_S = 60.0
"""Maximum interval of snapshots. A source without snapshots for longer means that the agent hangs."""


@dataclass(frozen=True, slots=True)
class Served:
    """The endpoints of the agent."""

    metrics: MetricsOptions | None = None
    live: LiveOptions | None = None


def run_standalone(
    manifests: Path, data_path: DataPathOptions, served: Served, *, annotations: bool = False
) -> None:
    """Run the agent without a cluster until a signal stops it. Limits stay enforced.

    ``annotations`` is whether annotations of pods declare limits.

    Raises SpecError if the folder does not exist, and what :func:`_run` raises.
    """
    stats = ReconcileStats()
    with ExitStack() as stack:
        if served.metrics:
            from tokenbucket.agent.metrics import Exposition  # noqa: PLC0415

            exposition = Exposition(data_path.pins, stats, lambda: stats.counts[Result.COMPLETE] > 0)
            stack.enter_context(exposition.serve(served.metrics))
        _serve_live(stack, served, data_path, stats, socket.gethostname())
        _run(lambda: FolderSource(manifests, annotations=annotations), data_path, stats)


def run_in_cluster(options: AgentOptions, data_path: DataPathOptions, served: Served) -> None:
    """Run the agent of one node of a cluster until a signal stops it. Limits stay enforced.

    Raises UnsupportedError without credentials or without a bpffs, and what :func:`_run` raises.
    """
    # The agent could mount one, but only in its container: the maps would end with the container.
    if not has_bpffs():
        raise UnsupportedError(f"{BPFFS}: the node has no bpffs; mount it at boot, or set agent.mountBpffs")
    # kopf and its HTTP client take 20 MiB, which a standalone agent does not need.
    from tokenbucket.agent.cluster import ClusterSource  # noqa: PLC0415
    from tokenbucket.agent.reporter import Reporter  # noqa: PLC0415
    from tokenbucket.apiserver.connection import answers  # noqa: PLC0415

    source, stats = ClusterSource(options), ReconcileStats()
    reporter = Reporter(source, stats)
    with ExitStack() as stack:
        if served.metrics:
            from tokenbucket.agent.metrics import Exposition  # noqa: PLC0415

            exposition = Exposition(
                data_path.pins,
                stats,
                lambda: reporter.ready,
                lambda: reporter.reported_at_s,
                answers.counts,
                source.informers.contacts,
            )
            stack.enter_context(exposition.serve(served.metrics))
        _serve_live(stack, served, data_path, stats, options.node)
        source.start()
        reporter.start()
        stack.callback(reporter.stop)
        _run(lambda: source, data_path, stats)


def _serve_live(
    stack: ExitStack, served: Served, data_path: DataPathOptions, stats: ReconcileStats, node: str
) -> None:
    if served.live:
        from tokenbucket.agent.live import LiveFigures  # noqa: PLC0415
        from tokenbucket.agent.live_endpoint import serving  # noqa: PLC0415

        stack.enter_context(serving(served.live, LiveFigures(data_path.pins, stats, node)))


def _run(open_source: Callable[[], Source], options: DataPathOptions, stats: ReconcileStats) -> None:
    """Run the agent until a signal stops it. ``stats`` receives the results of its runs.

    Raises what ``open_source`` raises, LockedError when another agent runs, LoadError, UnsupportedError and
    KernelError.
    """
    with StopSignals() as signals, closing(open_source()) as source:
        while not signals.stopping:
            if inputs := _to_clean(source):
                with suppress(InterruptedWaitError):
                    detached = detach_all(options.pins, lambda: signals.stopping)
                    log.info("all filters and queues removed", extra={"filters": detached})
                    stats.record_clean(inputs)
                    _stay_away(source, signals, stats)
            else:
                with Locks.of(options.pins).only_agent():
                    _enforce(source, signals, options, stats)
    log.info("stopped; limits stay active")


def _to_clean(source: Source) -> DesiredInput | None:
    """Return the input if it asks for a clean node."""
    inputs = source.snapshot()
    return inputs if inputs and inputs.cleanup else None


def _stay_away(source: Source, signals: StopSignals, stats: ReconcileStats) -> None:
    """Wait until the node need not be clean any more."""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ, source.drain)
        selector.register(signals, selectors.EVENT_READ, signals.drain)
        while not signals.stopping and (inputs := _to_clean(source)):
            stats.record_clean(inputs)
            for key, _ in selector.select(_ASK_S):
                key.data()


def _enforce(source: Source, signals: StopSignals, options: DataPathOptions, stats: ReconcileStats) -> None:
    """Enforce limits until a signal arrives, or until the node must be cleaned."""
    pins, sizes = options.pins, options.sizes
    with ExitStack() as stack:
        connection = connect()
        own_ports = {connection.portid}
        monitor = stack.enter_context(closing(Monitor(ignore=own_ports)))
        tcx = Tcx(pins)
        view = View(connection, tcx, monitor.ignoring)
        with ThreadPoolExecutor(1) as loader:  # compiles on another CPU while the network is read
            loading = loader.submit(load_or_keep, pins, sizes, None, lambda: signals.stopping)
            with reported("first read of the node"):
                view.refresh()
            build, rejected = loading.result()
        if rejected:
            log.error("program not loaded; the previous program stays attached", extra={"error": rejected})
        opened = stack.enter_context(Slots(pins))
        programs = stack.enter_context(closing(Programs(pins, build)))
        addresses = stack.enter_context(closing(NodeAddresses(pins)))
        log.info("started", extra={"source": str(source), "pins": str(pins.folder), "build": build})
        if opened.count != sizes.slots:
            log.warning(
                "number of slots not changed", extra={"slots": opened.count, "requested": sizes.slots}
            )
        if tcx.stubs.dispatch.point_to(programs.fds):
            view.invalidate_all()  # it shows the programs of before
        reconciler = Reconciler(
            Observer(view, opened, programs),
            Executor(view, opened, programs, tcx.stubs, addresses),
            Locks.of(pins, lambda: signals.stopping),
            Capabilities(has_fq(connection), data_plane=DataPlane(options.attach, tcx.is_supported)),
            Verifier(opened, tcx.names),
        )
        offered = OfferedTraffic(pins)
        stats.offered = offered.report
        stack.callback(offered.follow, {})
        loop = Loop(
            source,
            signals,
            monitor,
            connection,
            own_ports,
            reconciler,
            tcx,
            pins,
            build,
            stats,
            follow=offered.follow,
        )
        try:
            loop.run()
        finally:
            loop.connection.close()
