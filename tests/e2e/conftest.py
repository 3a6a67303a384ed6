"""One cluster for all tests of this folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster, find
from cluster.kubectl import Kubectl
from cluster.lifecycle import down, up


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster: one that is up is used and left up, otherwise one is made, and ended after the tests.

    With a node in a virtual machine, unless ``$TOKENBUCKET_E2E_VM`` is 0.
    """
    was_up = find() is not None
    vm = os.environ.get("TOKENBUCKET_E2E_VM", "1") != "0"
    made = up(lambda text: print(text, file=sys.stderr, flush=True), vm=vm)
    yield made
    if not was_up:
        down()


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """Commands as the administrator."""
    return cluster.kubectl
