"""hack/e2e-kind.sh, which needs docker, beside the tests that it runs."""

from __future__ import annotations

from pathlib import Path

from cluster.images import CLIENT_TAG
from tests.e2e.image import TAG

SCRIPT = (Path(__file__).parents[3] / "hack/e2e-kind.sh").read_text().splitlines()


def test_kind_is_given_every_image_that_the_tests_take_from_the_nodes() -> None:
    """They pull none, so that without one not a single pod would start."""
    assert {f"image={TAG}", f"client={CLIENT_TAG}"} <= set(SCRIPT)
    [load] = [line for line in SCRIPT if line.startswith("kind load docker-image")]
    assert load.split()[3:5] == ['"$image"', '"$client"']
