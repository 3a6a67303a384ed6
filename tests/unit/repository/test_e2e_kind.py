"""hack/e2e-kind.sh, which needs docker."""

from __future__ import annotations

from pathlib import Path

from cluster.images import CLIENT_TAG
from tests.e2e.image import TAG

SCRIPT = (Path(__file__).parents[3] / "hack/e2e-kind.sh").read_text().splitlines()


def test_kind_loads_every_image_that_the_tests_use() -> None:
    """Load them, because the tests pull none."""
    assert {f"image={TAG}", f"client={CLIENT_TAG}"} <= set(SCRIPT)
    [load] = [line.strip() for line in SCRIPT if line.strip().startswith("kind load docker-image")]
    assert load.split()[3:5] == ['"$image"', '"$client"']
