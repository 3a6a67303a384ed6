"""Plugin of the pytest that runs inside a machine: changes one setting of its kernel before the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_SYSCTL = Path("/proc/sys")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_BTF = Path("/sys/kernel/btf")


def _sysctl(name: str, value: str) -> None:
    file = _SYSCTL / name
    file.write_text(value)
    assert file.read_text().strip() == value, file


def _hide_btf() -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", _BTF], check=True)
    assert not list(_BTF.iterdir())


def _show_btf() -> None:
    subprocess.run(["umount", _BTF], check=True)


def _lock_down() -> None:
    subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=False)
    _LOCKDOWN.write_text("integrity")
    assert "[integrity]" in _LOCKDOWN.read_text()


def _nothing() -> None:
    """Keep the setting: it does not affect the next one, or the kernel refuses to undo it."""


SETTINGS: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "unprivileged_bpf_disabled": (lambda: _sysctl("kernel/unprivileged_bpf_disabled", "2"), _nothing),
    "bpf_jit_harden": (
        lambda: _sysctl("net/core/bpf_jit_harden", "2"),
        lambda: _sysctl("net/core/bpf_jit_harden", "0"),
    ),
    "no BTF": (_hide_btf, _show_btf),
    "lockdown=integrity": (_lock_down, _nothing),
}
"""How each is made and undone. A machine has them one after the other, in this order."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--setting", choices=SETTINGS, required=True, help="setting of the kernel")


def pytest_configure(config: pytest.Config) -> None:
    SETTINGS[config.getoption("--setting")][0]()


def pytest_unconfigure(config: pytest.Config) -> None:
    SETTINGS[config.getoption("--setting")][1]()
