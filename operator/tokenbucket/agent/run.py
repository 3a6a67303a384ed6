"""Composition of the agent, with a folder of manifests or with the API server as its source."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tokenbucket.agent import loop
from tokenbucket.agent.options import AgentOptions, DataPathOptions, MetricsOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats, Result
from tokenbucket.agent.source import FolderSource


def run_standalone(manifests: Path, data_path: DataPathOptions, metrics: MetricsOptions | None) -> None:
    """Run the agent without a cluster until a signal stops it. Limits stay enforced.

    Raises SpecError if the folder does not exist, and what :func:`tokenbucket.agent.loop.run` raises.
    """
    stats = ReconcileStats()
    with ExitStack() as stack:
        if metrics:
            from tokenbucket.agent.metrics import Exposition  # noqa: PLC0415

            exposition = Exposition(data_path.pins, stats, lambda: stats.counts[Result.COMPLETE] > 0)
            stack.enter_context(exposition.serve(metrics))
        loop.run(lambda: FolderSource(manifests), data_path, stats)


def run_in_cluster(options: AgentOptions, data_path: DataPathOptions, metrics: MetricsOptions | None) -> None:
    """Run the agent of one node of a cluster until a signal stops it. Limits stay enforced.

    Raises UnsupportedError without credentials, and what :func:`tokenbucket.agent.loop.run` raises.
    """
    # kopf and its HTTP client take 20 MiB, which a standalone agent does not need.
    from tokenbucket.agent.cluster import ClusterSource  # noqa: PLC0415
    from tokenbucket.agent.reporter import Reporter  # noqa: PLC0415
    from tokenbucket.apiserver.connection import answers  # noqa: PLC0415

    source, stats = ClusterSource(options), ReconcileStats()
    reporter = Reporter(source, stats)
    with ExitStack() as stack:
        if metrics:
            from tokenbucket.agent.metrics import Exposition  # noqa: PLC0415

            exposition = Exposition(
                data_path.pins, stats, lambda: reporter.ready, lambda: reporter.reported_at_s, answers.counts
            )
            stack.enter_context(exposition.serve(metrics))
        source.start()
        reporter.start()
        stack.callback(reporter.stop)
        loop.run(lambda: source, data_path, stats)
