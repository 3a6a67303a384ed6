"""Runs the agent of one node of a cluster."""

from __future__ import annotations

from contextlib import ExitStack

from tokenbucket.agent import loop
from tokenbucket.agent.cluster import AgentOptions, ClusterSource
from tokenbucket.agent.options import MetricsOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.reporter import Reporter
from tokenbucket.apiserver.connection import answers
from tokenbucket.bpf.pins import Pins, Sizes


def run(options: AgentOptions, pins: Pins, sizes: Sizes, metrics: MetricsOptions | None) -> None:
    """Runs until it is told to stop; limits stay in force. Raises as :func:`tokenbucket.agent.loop.run` does,
    and UnsupportedError when there are no credentials.
    """
    source, passes = ClusterSource(options), ReconcileStats()
    reporter = Reporter(source)
    with ExitStack() as stack:
        if metrics:
            from tokenbucket.agent.metrics import Exposition  # noqa: PLC0415

            exposition = Exposition(
                pins, passes, lambda: reporter.ready, lambda: reporter.reported_at_s, answers.counts
            )
            stack.enter_context(exposition.serve(metrics))
        source.start()
        reporter.start()
        stack.callback(reporter.stop)
        loop.run(lambda: source, pins, sizes, passes)
