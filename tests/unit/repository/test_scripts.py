"""Scripts of the repository, with other programs in place of make and unshare."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yaml")
}


def run(
    folder: Path, program: str, body: str, *command: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with a program of its own in ``PATH``."""
    file = folder / program
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=ROOT, env={"PATH": path, **variables}, check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"REQUIRE": "unit"}], ids=str)
def test_a_required_run_never_falls_back_to_the_network(variables: dict[str, str], tmp_path: Path) -> None:
    done = run(tmp_path, "unshare", "exit 1", "hack/without-network.sh", "echo", "ran", **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot make a network namespace" in done.stderr


def test_a_run_without_privileges_falls_back_to_the_network(tmp_path: Path) -> None:
    done = run(tmp_path, "unshare", "exit 1", "hack/without-network.sh", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_make_nightly_runs_each_job_of_the_workflow(tmp_path: Path) -> None:
    """Run the jobs after one that fails too."""
    body = '[ "$2" != test-vm ] && echo "$REQUIRE $2${3:+ $3}"'
    done = run(tmp_path, "make", body, "hack/nightly.sh")
    jobs = WORKFLOWS["nightly"]["jobs"]["test"]["strategy"]["matrix"]["include"]
    ran = [line for line in done.stdout.splitlines() if not line.startswith("---")]
    assert ran == [f"{job['rung']} {job['verb']}" for job in jobs if job["verb"] != "test-vm"]
    assert done.returncode == 1
    assert done.stderr == "failed: make test-vm\n"


@pytest.mark.parametrize(
    ("workflow", "job"),
    [
        (name, job)
        for name, flow in WORKFLOWS.items()
        for job, it in flow["jobs"].items()
        if "container" in it
    ],
)
def test_a_container_lets_git_read_the_checkout(workflow: str, job: str) -> None:
    """Root of the container does not own the files, and git fails with 'dubious ownership' otherwise."""
    steps = WORKFLOWS[workflow]["jobs"][job]["steps"]
    commands = [step.get("run", "checkout") for step in steps]
    after = commands.index("checkout") + 1
    assert commands[after] == 'git config --global --add safe.directory "$GITHUB_WORKSPACE"'


def test_continuous_integration_checks_generated_files_and_subjects() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make lint" in script
    assert "make verify" in script
    assert "make check-commits" in script
