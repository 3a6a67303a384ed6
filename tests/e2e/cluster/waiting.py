"""Wait for a condition, with the cause if it does not occur."""

from __future__ import annotations

import time
from collections.abc import Callable

from .components import Components
from .errors import ClusterError


def wait_for(
    condition: Callable[[], bool],
    *,
    what: str,
    among: Components,
    component: str,
    timeout_s: float,
    step_s: float = 0.05,
) -> None:
    """Wait until ``condition`` holds, which the given component is to bring about.

    Raises ClusterError with the end of its log when it ends before, or after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    part, log = f"{among.name}/{component}", among.log(component)
    while not condition():
        status = among.exit_status(component)
        if status is not None:
            raise ClusterError(part, f"ended with status {status} before {what}", log=log)
        if time.monotonic() > deadline:
            raise ClusterError(part, f"{what}: not after {timeout_s:.0f} s", log=log)
        time.sleep(step_s)
