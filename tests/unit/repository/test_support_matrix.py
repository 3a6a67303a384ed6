"""The support matrix: its cells, its records, and the claims of other files."""

from __future__ import annotations

import re
import sys
import tomllib
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


@pytest.mark.parametrize("status", [0, 3])
def test_a_run_is_recorded_with_its_result(status: int, recorded: Path) -> None:
    output = "release: 3.12.1\n== 5 passed, 1 skipped in 2.50s =="
    program = f"import sys; print({output!r}); sys.exit({status})"
    assert record.main("Python", "3.12", sys.executable, "-c", program) == status
    result = results.read()["Python", "3.12"]
    assert (result.release, result.passed, result.summary) == ("3.12.1", status == 0, "5 passed, 1 skipped")


def test_a_selection_of_tests_is_not_recorded(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGS", "-k nothing")
    assert not results.is_wanted()


def test_a_run_without_a_cell_is_an_error(recorded: Path) -> None:
    with pytest.raises(KeyError, match=r"no cell Python 2\.7"):
        results.write(("Python", "2.7"), PASSED)
