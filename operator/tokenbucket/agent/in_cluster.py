"""Runs the agent of one node of a cluster."""

from __future__ import annotations

from tokenbucket.agent import loop
from tokenbucket.agent.cluster import AgentOptions, ClusterSource
from tokenbucket.agent.reporter import Reporter
from tokenbucket.bpf.pins import Pins, Sizes


def run(options: AgentOptions, pins: Pins, sizes: Sizes) -> None:
    """Runs until it is told to stop; limits stay in force. Raises as :func:`tokenbucket.agent.loop.run` does,
    and UnsupportedError when there are no credentials.
    """
    source = ClusterSource(options)
    reporter = Reporter(source)
    source.start()
    reporter.start()
    try:
        loop.run(lambda: source, pins, sizes)
    finally:
        reporter.stop()
