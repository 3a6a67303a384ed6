"""A limit on a kernel with settings that restrict BPF, in one virtual machine."""

from __future__ import annotations

import pytest

from tests.support import results
from tests.vm.kernels import KERNELS
from tests.vm.machine import Ended, run_rungs
from tests.vm.settings import SETTINGS

pytestmark = pytest.mark.timeout(3600)
_KERNEL = next(kernel for kernel in KERNELS if kernel.series == "6.12")
_TESTS = (
    "tests/netns/test_agent.py::test_a_pod_receives_its_burst_to_the_packet[10.2.1.2/24-ptp]",
    "tests/netns/test_agent.py::test_egress_is_limited_at_the_other_hook",
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Return how the tests ended with each setting."""
    options = ("-p", "tests.vm.settings", "-p", "no:randomly", "--timeout=1800")
    folder = tmp_path_factory.mktemp("settings-")
    rungs = {str(number): [*_TESTS, *options, f"--setting={name}"] for number, name in enumerate(SETTINGS)}
    done = run_rungs(_KERNEL, rungs, folder)
    return {name: done[str(number)] for number, name in enumerate(SETTINGS)}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_limit_is_exact_to_the_packet_with(setting: str, ended: dict[str, Ended]) -> None:
    """In both directions, by an agent that compiles and loads the program."""
    found = ended[setting]
    summary = found.summary[0].partition(" in ")[0]
    results.record(
        ("Kernel setting", setting), found.kernel, "make test-settings", summary, passed=found.passed
    )
    if not found.passed:
        pytest.fail(found.explain(), pytrace=False)
