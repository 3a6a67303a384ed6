"""The program and its attachment work on the kernels of Debian, in virtual machines."""

from __future__ import annotations

import pytest

from tests.vm.conftest import SHORT, Rungs
from tests.vm.kernels import KERNELS, Kernel

_CHOSEN = [kernel for kernel in KERNELS if kernel.short or not SHORT]
pytestmark = [pytest.mark.timeout(3600), pytest.mark.parametrize("kernel", _CHOSEN, ids=str)]


def test_the_bpf_rung_passes_on(kernel: Kernel, rungs_in: Rungs) -> None:
    """Run the verifier and the JIT of this kernel, by BPF_PROG_TEST_RUN."""
    ended = rungs_in(kernel)["bpf"]
    if not ended.passed:
        pytest.fail(ended.explain(), pytrace=False)


def test_the_netns_rung_passes_on(kernel: Kernel, rungs_in: Rungs) -> None:
    """Use the qdiscs, filters, netlink messages and packets of this kernel."""
    ended = rungs_in(kernel)["netns"]
    if not ended.passed:
        pytest.fail(ended.explain(), pytrace=False)
