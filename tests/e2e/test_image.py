"""The image without a cluster: its content, and its programs under the constraints of a pod."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.e2e.image import LABELS, REPOSITORY, Unpacked, operator_image, unpacked
from tests.e2e.sandbox import MIB, Sandbox

pytestmark = pytest.mark.timeout(1800)  # the first one builds the image

AGENT = ("CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON")
"""Capabilities of the agent."""
NOBODY = 65532
"""Who the controller runs as."""
LOADER_LIMIT_BYTES = (320 - 64) * MIB
"""Of what the chart gives the agent and its loader together, the agent takes up to 64 MiB."""

_BUILD_TOOLS = r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|llc|ld|as|make|pip3?|wheel)(-?[\d.]+)?"
_LOAD = """
import resource
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import Pins
pins = Pins()
assert pins.has_build(ensure_loaded(pins))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_IMPORT_ALL = """
import importlib, pkgutil, tokenbucket
for module in pkgutil.walk_packages(tokenbucket.__path__, "tokenbucket."):
    if not module.name.endswith("__main__") and not module.name.startswith("tokenbucket.plugin"):
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Unpacked]:
    """Provide the files of the image."""
    with unpacked(operator_image()) as found:
        yield found


def sandbox(image: Unpacked, **constraints: object) -> Sandbox:
    """Provide the image with its own environment."""
    return Sandbox(image.root, **{"environment": image.config["Env"], **constraints})


def python(image: Unpacked) -> str:
    """Return the interpreter of the entry point."""
    return image.config["Entrypoint"][0]


def normal(name: str) -> str:
    """Return the normalized name of a Python package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def site_packages(image: Unpacked) -> str:
    """Return the folder of the Python packages of the image."""
    (folder,) = image.root.glob("opt/tokenbucket/lib/python3.*/site-packages")
    return str(folder)


def installed(image: Unpacked) -> dict[str, str]:
    """Return the versions of the Python packages of the image."""
    return {normal(found.name): found.version for found in distributions(path=[site_packages(image)])}


def sbom(image: Unpacked) -> set[str]:
    """Return the names of the packages in the package list of the image."""
    (file,) = (image.root / "usr/share/sbom").iterdir()
    return {package["name"] for package in json.loads(file.read_text())["packages"]}


def test_the_python_packages_are_the_pinned_ones(image: Unpacked) -> None:
    """Contain neither pip nor the official client, which would triple the memory of the agent."""
    lines = (REPOSITORY / "requirements/image.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    found = installed(image)
    del found["tokenbucket"]
    assert found == {normal(name): version for name, version in pinned.items()}


def test_the_pinned_packages_are_the_tested_ones() -> None:
    """Use the versions of the other tests."""
    tested = (REPOSITORY / "requirements/dev.txt").read_text().splitlines()
    shipped = (REPOSITORY / "requirements/image.txt").read_text().splitlines()
    assert [line for line in shipped if not line.startswith("#") and line not in tested] == []


def test_the_image_has_no_build_tools(image: Unpacked) -> None:
    """Search all folders for compiler, linker and pip."""
    programs = [path for path in image.root.rglob("*") if re.fullmatch(_BUILD_TOOLS, path.name)]
    assert [path for path in programs if "share/doc" not in str(path)] == []


def test_the_image_has_no_documentation_and_no_cache(image: Unpacked) -> None:
    """Keep only the licenses of Debian packages."""
    names = ("share/man", "share/info", "share/locale", "../var/cache", "../var/lib/apt/lists", "../var/log")
    rest = [path for name in names for path in (image.root / "usr" / name).glob("*")]
    documents = [path for path in (image.root / "usr/share/doc").rglob("*") if path.is_file()]
    assert rest + [path for path in documents if path.name != "copyright"] == []


@pytest.mark.parametrize("user", [0, NOBODY])
def test_the_entry_point_runs_with_a_read_only_root(image: Unpacked, user: int) -> None:
    """Run as root without a capability, and as the user of the controller."""
    done = sandbox(image, user=user).run(*image.config["Entrypoint"], "--version")
    assert done.stdout == f"tokenbucket {installed(image)['tokenbucket']}\n", done.stderr


def test_every_module_can_be_imported(image: Unpacked) -> None:
    """Exclude the plugin, which runs on the machines of users."""
    done = sandbox(image, user=NOBODY).run(python(image), "-I", "-c", _IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_the_loader_loads_with_the_memory_and_the_capabilities_of_the_agent(image: Unpacked) -> None:
    """Compile against the headers of the image, without writes to the root file system."""
    done = sandbox(image, capabilities=AGENT).run(python(image), "-I", "-c", _LOAD)
    assert done.returncode == 0, done.stderr
    print(f"the loader's peak: {int(done.stdout) // 1024} MiB")
    assert int(done.stdout) * 1024 < LOADER_LIMIT_BYTES


@pytest.mark.parametrize("without", AGENT)
def test_each_capability_of_the_agent_is_necessary(image: Unpacked, without: str) -> None:
    """Reject the program or its maps if one is missing."""
    fewer = [name for name in AGENT if name != without]
    done = sandbox(image, capabilities=fewer).run(python(image), "-I", "-c", _LOAD)
    assert done.returncode != 0
    assert "LoadError" in done.stderr


@pytest.mark.parametrize("command", ["entry point", "tokenbucket"])
def test_the_environment_does_not_change_imports(image: Unpacked, tmp_path: Path, command: str) -> None:
    """Ignore PYTHONPATH and the current folder, because the agent runs as root."""
    for module in ("argparse", "sitecustomize", "tokenbucket"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('not the image')")
    surroundings = [*image.config["Env"], "PYTHONPATH=/mnt", "PYTHONSTARTUP=/mnt/argparse.py"]
    argv = image.config["Entrypoint"] if command == "entry point" else [command]
    done = sandbox(image, environment=surroundings, folder="/mnt", shown={"/mnt": tmp_path}).run(
        *argv, "--version"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_labels_describe_the_build(image: Unpacked) -> None:
    """Use the names of the OCI specification."""
    labels = image.config["Labels"]
    assert {name: labels[f"org.opencontainers.image.{name}"] for name in LABELS} == LABELS
    assert labels["org.opencontainers.image.source"].startswith("https://")


def test_the_list_of_packages_is_complete(image: Unpacked) -> None:
    """Include every Debian and Python package, and the packages of the headers."""
    status = (image.root / "var/lib/dpkg/status").read_text()
    expected = {*re.findall(r"^Package: (.*)$", status, re.MULTILINE), *installed(image)}
    listed = sbom(image)
    assert {"kopf", "python3-bpfcc"} <= listed
    assert any(name.startswith("linux-headers-") for name in listed)
    assert expected - listed == set()
