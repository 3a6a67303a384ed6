"""Rules of the repository that no other tool checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import tokenbucket

ROOT = Path(__file__).parents[3]
SPDX = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"


def test_operator_is_the_module_of_python() -> None:
    """Keep operator/ from becoming a package, which would break modules of Python."""
    command = [sys.executable, "-S", "-c", "import operator; print(operator.__file__)"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert Path(shown.strip()).parent == Path(sysconfig.get_path("stdlib"))


def test_operator_contains_only_a_package_and_c_source() -> None:
    """Avoid modules or tests that Python would import by the name of its module."""
    found = {path.name for path in (ROOT / "operator").iterdir()} - {"__pycache__"}
    assert found == {"bpf", "tokenbucket"}
    assert [str(path) for path in (ROOT / "operator").rglob("test_*.py")] == []


@pytest.mark.parametrize("name", ["utils", "helpers", "helper", "manager", "common", "misc"])
def test_no_module_has_a_name_without_a_subject(name: str) -> None:
    """Reject names such as utils."""
    assert list((ROOT / "operator").rglob(f"{name}.py")) == []


def test_no_module_is_longer_than_300_lines() -> None:
    """Split a module that exceeds them."""
    modules = [path for path in (ROOT / "operator").rglob("*") if path.suffix in {".py", ".c", ".h"}]
    lengths = {path.name: len(path.read_text().splitlines()) for path in modules}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_the_version_is_the_latest_of_the_changelog() -> None:
    """Use the next version if there are unreleased changes."""
    sections = re.split(r"^## \[([^]]+)\].*", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    unreleased, changes, latest = sections[1:4]
    assert unreleased == "Unreleased"
    assert (tokenbucket.__version__ != latest) == bool(changes.strip())


def test_nothing_is_published_before_the_tests_have_passed() -> None:
    """Run them on the tag, which can differ from a branch."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())["jobs"]
    assert jobs["tests"]["uses"] == "./.github/workflows/ci.yaml"
    assert {name: job.get("needs") for name, job in jobs.items() if name != "tests"} == {
        "image": "tests",
        "chart": "image",
        "plugin": "chart",
    }


_MAKES_NAMESPACE = {"fresh_namespace", "two_limited_pods", "two_held_pods"}


def namespaces_of(module: Path) -> Iterator[str]:
    """Return the namespaces that an e2e module creates. A constant may be of another module."""
    tree = ast.parse(module.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    origins = {name.name: (node.module or "").rpartition(".")[2] for node in imports for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _MAKES_NAMESPACE:
            word = node.args[-1]
            if isinstance(word, ast.Name):
                source = module.with_name(f"{origins.get(word.id, module.stem)}.py").read_text()
                yield from re.findall(rf'(?m)^{word.id} = "(.+)"$', source)
            else:
                yield ast.literal_eval(word)


def test_e2e_modules_share_no_namespace() -> None:
    """Avoid failures by a namespace that is still being deleted."""
    modules = sorted((ROOT / "tests/e2e").glob("test_*.py"))
    owners = {(namespace, module.name) for module in modules for namespace in namespaces_of(module)}
    assert {"chart-test", "survival-delay"} <= {namespace for namespace, _ in owners}
    assert len(owners) == len({namespace for namespace, _ in owners}), sorted(owners)


def test_each_c_file_starts_with_its_license() -> None:
    """State it, because the program of the kernel has another license than the rest."""
    files = sorted((ROOT / "operator" / "bpf").glob("*.[ch]"))
    assert files
    assert [path.name for path in files if SPDX not in path.read_text().splitlines()[0]] == []


def test_each_named_license_is_in_the_repository() -> None:
    """Include the full text."""
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    kernel_side = (ROOT / "operator" / "bpf" / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in kernel_side
    assert "Redistribution and use in source and binary forms" in kernel_side
