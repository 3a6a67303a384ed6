"""Build everything that the tests of a rung use: ``python -m tests.set_up RUNG...``.

Tests build and download nothing. Existing results are not built again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from cluster import virtual_machine
from cluster.binaries import Binaries, actionlint, binaries, helm, helm4, helm_unittest, kustomize
from cluster.cilium_programs import cilium_programs
from cluster.errors import ClusterError
from cluster.image_store import disk, image_store
from cluster.images import Image, standard_images
from tests.chart.promtool import promtool
from tests.e2e.image import layout_image, operator_image
from tests.vm.kernels import KERNELS


def chart() -> None:
    """Build helm 3 and 4, kustomize, helm-unittest and promtool."""
    helm(report)
    helm4(report)
    kustomize(report)
    helm_unittest(report)
    promtool()


def workflows() -> None:
    """Build actionlint, and print its path."""
    print(actionlint() / "actionlint")


def vm() -> None:
    """Unpack the kernels, and install the program that boots them."""
    for kernel in KERNELS:
        virtual_machine.debian_kernel(kernel.series, kernel.suite, report)
    virtual_machine.launcher()


def e2e() -> None:
    """Build the cluster's programs and images, and the disks of its nodes.

    The suite's cluster has the images of tokenbucket. The clusters of tests/e2e/test_teardown.py have only
    the standard images, and one of them always begins to boot a virtual machine.
    """
    programs = binaries(report)
    helm4(report)
    kustomize(report)
    suite = _suite_images(programs)
    virtual_machine.kernel(report)
    virtual_machine.launcher()
    disk(standard_images(programs, report), programs, report)
    if os.environ.get("TOKENBUCKET_E2E_VM", "1") != "0":
        disk(suite, programs, report)


def kubernetes() -> None:
    """Build the programs and images of a cluster without the virtual machine."""
    _suite_images(binaries(report))


def e2e_cilium() -> None:
    """Build the cluster's programs and images, and Cilium."""
    _suite_images(binaries(report))
    cilium_programs(report)


def _suite_images(programs: Binaries) -> tuple[Image, ...]:
    """Build the images for the nodes of a suite's cluster, and their containerd store."""
    standard = standard_images(programs, report)
    report("images of tokenbucket")
    suite = (*standard, operator_image(), layout_image())
    image_store(suite, programs, report)
    return suite


RUNGS: dict[str, Callable[[], None]] = {
    "chart": chart,
    "workflows": workflows,
    "vm": vm,
    "e2e": e2e,
    "kubernetes": kubernetes,
    "e2e-cilium": e2e_cilium,
}


def report(text: str) -> None:
    """Print one line."""
    print(text, flush=True)


def main() -> int:
    """Set up the named rungs. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rungs", nargs="+", choices=RUNGS)
    try:
        for name in parser.parse_args().rungs:
            RUNGS[name]()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
