"""The controller of the fleet: the real one, which also writes the CPU times of its runs to a file."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tokenbucket.__main__ import main
from tokenbucket.apiserver import informers
from tokenbucket.apiserver.client import Client
from tokenbucket.controller.reconciler import StatusReconciler


def record_runs(runs: Path) -> None:
    """After each run, append its end (monotonic, seconds) and its CPU time (milliseconds)."""
    lines, reconcile = runs.open("a", buffering=1), StatusReconciler.reconcile

    async def recorded(reconciler: StatusReconciler, client: Client) -> None:
        begin_s = time.thread_time()
        try:
            await reconcile(reconciler, client)
        finally:
            lines.write(f"{time.monotonic()} {1000 * (time.thread_time() - begin_s)}\n")

    StatusReconciler.reconcile = recorded


if __name__ == "__main__":
    record_runs(Path(os.environ["FLEET_RUNS"]))
    informers._RELIST_S = float(os.environ.get("FLEET_RELIST_S", informers._RELIST_S))
    sys.exit(main())
