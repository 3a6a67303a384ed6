"""The rungs of the test ladder: each folder here is one, and needs more of the machine than the one before.

A rung that this machine cannot run is skipped, with the reason in the last lines of the run.
``REQUIRE=bpf,netns`` makes such a reason an error before anything runs, so that a skip never passes for a
success. A test that needs more of the kernel than its rung has a mark: ``@pytest.mark.needs("sch_fq")``;
``REQUIRE=sch_fq`` makes that reason an error too.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from cluster.store import ONLY_BUILT
from tests import rungs

TESTS = Path(__file__).parent

# No deadline: nothing is timed. Fixed inputs: a change fails only for faults of its own. The blob replays a
# failure on another machine.
settings.register_profile("tokenbucket", deadline=None, print_blob=True, derandomize=True)
# For machines that are slow: --hypothesis-profile=few.
settings.register_profile("few", settings.get_profile("tokenbucket"), max_examples=10)
# For make fuzz: random inputs. .hypothesis keeps each input that fails, and further runs try it first.
settings.register_profile("many", deadline=None, print_blob=True, derandomize=False, max_examples=3000)
settings.load_profile("tokenbucket")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tokenbucket")
    group.addoption("--random-events", type=int, default=60, help="number of random events on a node")
    group.addoption("--random-seed", default="0", help="seed of random events on a node")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(part, ...): of the kernel; one of {', '.join(rungs.PARTS)}")
    config.addinivalue_line("markers", "exceeds: traffic passes a limit on purpose")
    config.addinivalue_line("markers", "kubernetes: depends on the version of Kubernetes")
    # A test, and each program that it starts, uses what 'make ...-setup' has built; it builds nothing.
    os.environ[ONLY_BUILT] = "1"
    required = [name.strip() for name in os.environ.get("REQUIRE", "").split(",") if name.strip()]
    unknown = sorted(set(required) - rungs.PROBES.keys())
    if unknown:
        raise pytest.UsageError(
            f"REQUIRE: no such rung or part: {', '.join(unknown)}; known: {', '.join(rungs.PROBES)}"
        )
    missing = {name: reason for name in required if (reason := rungs.missing(name))}
    if missing:
        raise pytest.UsageError("; ".join(f"REQUIRE={name}: {reason}" for name, reason in missing.items()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rung = _rung(item.path)
        needed = [rung, *(part for mark in item.iter_markers("needs") for part in mark.args)]
        reason = next(filter(None, map(rungs.missing, needed)), None)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _rung(path: Path) -> str:
    """Return the folder below tests/ that a test is in."""
    rung = path.relative_to(TESTS).parts[0]
    if rung not in rungs.RUNGS:
        raise pytest.UsageError(f"{path}: tests go in a rung: {', '.join(rungs.RUNGS)}")
    return rung


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter(_skip(report) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.section("skipped")
    for (rung, reason), count in sorted(skipped.items()):
        terminalreporter.write_line(f"{rung}: {count} skipped: {reason}")
    if not skipped:
        terminalreporter.write_line("nothing")


def _skip(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str]:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return Path(report.nodeid).parts[1], reason.removeprefix("Skipped: ")
