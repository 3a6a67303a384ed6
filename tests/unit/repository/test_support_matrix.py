"""The support matrix: its cells, its records, and the claims of other files."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hack import support_matrix

from tests.support import record, results
from tests.support.results import Result
from tests.vm.kernels import KERNELS
from tests.vm.settings import SETTINGS

ROOT = Path(__file__).parents[3]
PASSED = Result("3.12.1", "2026-11-30", "make test-python VERSION=3.12", passed=True, summary="3 passed")
FAILED = Result("3.13.0", "2026-11-30", "make test-python VERSION=3.13", passed=False, summary="1 failed")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the results, empty."""
    file = tmp_path / "results.json"
    file.write_text("{}")
    monkeypatch.setattr(results, "RESULTS", file)
    monkeypatch.setenv("RECORD", "1")
    monkeypatch.delenv("ARGS", raising=False)
    return file


def versions(component: str) -> tuple[str, ...]:
    return {each.name: each for each in results.components()}[component].versions


def test_every_tested_version_has_a_cell() -> None:
    table = tomllib.loads((ROOT / "tests/e2e/cluster/versions.toml").read_text())
    minors = tuple(version.rpartition(".")[0] for version in table["kubernetes"]["versions"])
    assert versions("Kubernetes") == minors
    assert {kernel.series for kernel in KERNELS} <= set(versions("Kernel"))
    assert {kernel.series for kernel in KERNELS if kernel.short} == set(versions("Kernel, selected tests"))
    assert tuple(SETTINGS) == versions("Kernel setting")


def test_the_chart_requires_the_oldest_kubernetes_of_the_cells() -> None:
    chart = yaml.safe_load((ROOT / "charts/tokenbucket/Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={versions('Kubernetes')[0]}.0-0"


def test_every_python_of_the_classifiers_passed_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: "
    claimed = [each.removeprefix(prefix) for each in project["classifiers"] if each.startswith(prefix)]
    recorded = results.read()
    passed = [each for each in versions("Python") if ("Python", each) in recorded]
    assert claimed == [each for each in passed if recorded["Python", each].passed]
    assert project["requires-python"].startswith(f">={claimed[0]},")


def passed(*components: str) -> list[str]:
    """Return the versions of components that passed their last recorded run."""
    return [
        version for (name, version), result in results.read().items() if name in components and result.passed
    ]


def requirement(component: str) -> str:
    """Return the cell of a component in the summary of the requirements."""
    page = (ROOT / "docs/reference/requirements.md").read_text()
    [found] = re.findall(rf"^\| {component} \| (.*) \|$", page, re.MULTILINE)
    return str(found)


def test_the_oldest_kernel_of_the_requirements_passed_the_tests() -> None:
    kernels = passed("Kernel", "Kernel, selected tests")
    oldest = min(kernels, key=lambda version: [int(part) for part in version.split(".")])
    assert requirement("kernel").startswith(f"Linux {oldest} or later")


@pytest.mark.parametrize("name", ["x86-64", "arm64"])
def test_the_requirements_name_an_architecture_as_tested_if_it_passed(name: str) -> None:
    assert (f"{name} is not tested" in requirement("architecture")) == (name not in passed("Architecture"))


def test_the_requirements_name_the_oldest_bcc_that_passed_the_tests() -> None:
    assert requirement("bcc").startswith(f"{min(passed('bcc'))} or later")


def test_every_record_has_a_cell() -> None:
    cells = {(each.name, version) for each in results.components() for version in each.versions}
    assert results.read().keys() <= cells


def test_a_cell_without_a_passed_run_is_not_shown_as_passed() -> None:
    page = support_matrix.page({("Python", "3.12"): PASSED, ("Python", "3.13"): FAILED})
    lines = {found[1]: line for line in page.splitlines() if (found := re.match(r"\| (3\.\d+) ", line))}
    assert "not tested" in lines["3.11"]
    assert "passed" in lines["3.12"]
    assert "**failed**" in lines["3.13"]
    quotation = support_matrix.quotation({("Python", "3.12"): PASSED, ("Python", "3.13"): FAILED})
    assert "- Python: 3.12\n" in f"{quotation}\n"
    assert "- Kernel: not tested" in quotation


def test_a_record_names_its_target_as_the_makefile_does() -> None:
    """No record is written by hand, with another command."""
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for result in results.read().values():
        make, target, *variables = result.command.split()
        assert (make, target in targets) == ("make", True), result
        assert all(re.fullmatch(r"VERSION=[0-9.]+", each) for each in variables), result


TARGET = "make test-python VERSION=3.12"
EXITED = "import sys; print(sys.argv[1]); sys.exit(int(sys.argv[2]))"


def run(output: str, status: int = 0, names: str = "Python", version: str = "3.12") -> Result:
    """Return the record of a command with an output and a status."""
    assert record.main(TARGET, names, version, sys.executable, "-c", EXITED, output, str(status)) == status
    return list(results.read().values())[-1]


@pytest.mark.parametrize("status", [0, 3])
def test_a_run_is_recorded_with_its_result(status: int, recorded: Path) -> None:
    result = run("release: 3.12.1\n== 5 passed, 1 skipped in 2.50s ==", status)
    assert (result.release, result.passed, result.summary) == ("3.12.1", status == 0, "5 passed, 1 skipped")
    assert result.command == TARGET
    assert result.commit


def test_each_summary_of_a_run_is_recorded(recorded: Path) -> None:
    """The tests on arm64 run pytest four times."""
    lines = ("= 5 passed in 1.0s =", "3 skipped in 1.0s", "= 1 failed, 2 passed in 75.1s (0:01:15) =")
    assert run("\n".join(lines), 1).summary == "5 passed; 3 skipped; 1 failed, 2 passed"


@pytest.mark.parametrize("output", ["", "== 3 skipped in 1.00s =="])
def test_a_run_in_which_no_test_passed_is_no_success(output: str, recorded: Path) -> None:
    assert not run(output).passed


def test_one_run_is_recorded_in_several_cells_of_this_machine(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {
        "Kernel": lambda: "6.12.117+deb13",
        "bcc": lambda: "0.31.0+ds-7",
        "Architecture": lambda: "riscv64",
    }
    monkeypatch.setattr(record, "HERE", here)
    run("== 5 passed in 2.50s ==", names="Architecture,Kernel,bcc", version="here")
    releases = {key: result.release for key, result in results.read().items()}
    assert releases == {("Kernel", "6.12"): "6.12.117+deb13", ("bcc", "0.31"): "0.31.0+ds-7"}


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-50-amd64", "6.1"), ("6.18.44", "6.18"), ("6.11.2", None), ("7.2", "7")]
)
def test_a_release_belongs_to_its_series(release: str, version: str | None) -> None:
    [kernel] = [each for each in results.components() if each.name == "Kernel"]
    assert record.cell(kernel, release) == version


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("e2e-kubernetes VERSION=1.36", '"make e2e-kubernetes VERSION=1.36" Kubernetes 1.36 '),
        ("test-quick", '"make test-quick" Architecture,Kernel,bcc here '),
    ],
)
def test_a_target_is_recorded_under_its_own_command(target: str, words: str) -> None:
    commands = subprocess.run(
        ("make", "--dry-run", *target.split()), cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert f"tests.support.record {words}" in commands


def test_runs_that_end_together_keep_both_records(recorded: Path) -> None:
    with recorded.open() as held, ThreadPoolExecutor() as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        writing = pool.submit(results.write, ("Python", "3.12"), PASSED)
        with pytest.raises(TimeoutError):
            writing.result(timeout=0.2)
        recorded.write_text(json.dumps({"Python": {"3.13": asdict(FAILED)}}))
        fcntl.flock(held, fcntl.LOCK_UN)
        writing.result()
    assert results.read().keys() == {("Python", "3.12"), ("Python", "3.13")}


def test_a_selection_of_tests_is_not_recorded(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGS", "-k nothing")
    assert not results.is_wanted()


def test_a_run_without_a_cell_is_an_error(recorded: Path) -> None:
    with pytest.raises(KeyError, match=r"no cell Python 2\.7"):
        results.write(("Python", "2.7"), PASSED)
