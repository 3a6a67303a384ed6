"""The health check of Argo CD in the documentation, run by Lua on statuses of the controller."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.core.status.test_policy_status import HEAD, good, node, over, status
from tokenbucket.core.api.policy import Mode

PAGE = Path(__file__).parents[3] / "docs" / "tasks" / "health-checks.md"
KEY = "resource.customizations.health.tokenbucket.dev_TokenBucketPolicy"
LUA = shutil.which("lua5.4") or ""


def script() -> str:
    """Return the script of the page."""
    block = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    return str(yaml.safe_load(block)["data"][KEY])


def literal(value: object) -> str:
    """Return a value as a Lua expression."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"[{literal(key)}] = {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, Sequence):
        return "{" + ", ".join(map(literal, value)) + "}"
    return str(value).lower()


def health(policy: Mapping[str, Any]) -> tuple[str, str]:
    """Return the health of a policy, and the message."""
    program = f"local function check(obj)\n{script()}\nend\n"
    program += f"local found = check({literal(policy)})\nprint(found.status)\nprint(found.message)\n"
    done = subprocess.run([LUA, "-"], input=program, capture_output=True, text=True, check=True)
    state, _, message = done.stdout.partition("\n")
    return state, message.rstrip("\n")


OFF = node("a", matched=1, off=1, enforcement="Off")
CASES = {
    "Healthy": [
        status(good("a")),
        status(),
        status(node("a", matched=1, off=1), head=replace(HEAD, mode=Mode.OFF)),
        status(node("a", matched=1, overridden=1, overridden_by=over("shop/other"))),
    ],
    "Progressing": [
        {},
        {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting"}]},
        status(good("a"), unseen=["b"]),
        status(node("a", matched=1, pending=1)),
        status(good("a")) | {"observedGeneration": HEAD.generation - 1},
    ],
    "Degraded": [
        status(head=replace(HEAD, rejected="spec.ingress: is empty")),
        status(node("a", matched=1, failed=1)),
        status(good("a", alive=False)),
    ],
    "Suspended": [status(OFF)],
}


@pytest.mark.skipif(not LUA, reason="lua5.4 is missing; run make setup")
@pytest.mark.parametrize(
    ("expected", "given"), [(name, given) for name, statuses in CASES.items() for given in statuses]
)
def test_argo_cd_shows_the_health_of_a_policy(expected: str, given: dict[str, Any]) -> None:
    """Show it as the page describes, with the message of the condition."""
    policy = {"metadata": {"name": "web", "generation": HEAD.generation}, "status": given}
    state, message = health(policy if given else {"metadata": policy["metadata"]})
    assert state == expected
    if state != "Progressing":
        assert message == given["conditions"][-1]["message"]
