"""The workflows that release and test the project."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

WORKFLOWS = sorted((Path(__file__).parents[3] / ".github/workflows").glob("*.yaml"))


def test_random_inputs_run_every_night() -> None:
    """All other runs use fixed inputs, so that no change fails because of an older fault."""
    nightly = next(path for path in WORKFLOWS if path.stem == "nightly")
    jobs = yaml.safe_load(nightly.read_text())["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert any(job["verb"].split()[0] == "fuzz" for job in jobs)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_failed_command_of_a_pipeline_fails_its_step(workflow: Path) -> None:
    """Run bash with pipefail, which GitHub sets only for a shell that a workflow names."""
    assert yaml.safe_load(workflow.read_text())["defaults"]["run"]["shell"] == "bash"
