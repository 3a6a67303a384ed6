"""Each kernel is booted once, for all rungs, and the last lines of the run say how the tests in it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import results
from tests.vm.kernels import KERNELS, Kernel
from tests.vm.machine import Ended, run_rungs

# No random order: a machine is the same each time.
_OPTIONS = ["-p", "no:randomly", "--hypothesis-profile=few", "--durations=20", "--timeout=1800"]
SHORT = os.environ.get("TOKENBUCKET_VM") == "short"
"""Whether one test runs for each part of a kernel, instead of all tests."""
_SHORT = ["--short"] if SHORT else []
_RUNGS = {rung: [f"tests/{rung}", "-p", "tests.vm.inside", *_OPTIONS, *_SHORT] for rung in ("bpf", "netns")}
# One beside the other rungs: a machine that gets less than half a processor exceeds the time limit of a load.
_AT_A_TIME = 1 if SHORT else 2
# A short run never replaces a whole one.
_RECORDED = {True: ("Kernel, selected tests", "make test-kernels"), False: ("Kernel", "make test-vm")}
_ENDED = pytest.StashKey[list[Ended]]()

Rungs = Callable[[Kernel], dict[str, Ended]]


@pytest.fixture(scope="session")
def rungs_in(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rungs]:
    """Provide the results of the rungs in the machine with a kernel. All required machines start at once."""
    wanted = {item.callspec.params["kernel"]: None for item in request.session.items if _is_ours(item)}
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        running = {
            kernel: pool.submit(run_rungs, kernel, _RUNGS, tmp_path_factory.mktemp(f"kernel-{kernel}-"))
            for kernel in wanted
        }
        yield lambda kernel: running[kernel].result()
    done = [each.result() for each in running.values() if not each.exception()]
    request.config.stash[_ENDED] = [ended for rungs in done for ended in rungs.values()]


def _is_ours(item: pytest.Item) -> bool:
    return "rungs_in" in getattr(item, "fixturenames", ())


def _record(ended: list[Ended]) -> None:
    """Record each kernel with both rungs."""
    for kernel in KERNELS:
        rungs = [each for each in ended if f"{each.kernel}.".startswith(f"{kernel.series}.")]
        summary = "; ".join(f"{each.rung}: {each.summary[0].partition(' in ')[0]}" for each in rungs)
        if len(rungs) == len(_RUNGS):
            component, command = _RECORDED[SHORT]
            passed = all(each.passed for each in rungs)
            results.record((component, kernel.series), rungs[0].kernel, command, summary, passed=passed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    _record(config.stash.get(_ENDED, []))
    for ended in config.stash.get(_ENDED, []):
        terminalreporter.section(f"{ended.rung} rung on {ended.kernel}")
        for line in ended.summary:
            terminalreporter.write_line(line)
