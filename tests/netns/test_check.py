"""``tokenbucket check`` on a real kernel: true results, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns import bpf_program
from tests.netns.lab import Lab, ip, tc
from tests.rungs import PARTS
from tokenbucket.bpf.pins import BPFFS
from tokenbucket.core.status.node_check import Ability, NodeCheck, State

CHECK = (sys.executable, "-m", "tokenbucket", "check", "-o", "json", "--node", "a")


def check(*options: str, before: str = "") -> tuple[NodeCheck, int]:
    """Return the result and the exit status. ``before`` runs in a mount namespace of the command."""
    command = [*CHECK, *options]
    if before:
        command = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return NodeCheck.of_document(json.loads(done.stdout)), done.returncode


def state(checked: NodeCheck, part: str) -> State:
    return next(finding.state for finding in checked.findings if finding.part == part)


def test_the_result_is_that_of_this_kernel_and_the_check_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    def present() -> tuple[object, ...]:
        pins = sorted(BPFFS.glob("tokenbucket*"))
        return pins, ip("-o", "link"), tc("qdisc", "show")

    before = present()
    checked, status = check("--cni-results", str(tmp_path / "missing"))
    has_fq = PARTS["sch_fq"]() is None
    assert (checked.node, status) == ("a", 0)
    assert checked.ability is (Ability.DELAY if has_fq else Ability.DROP)
    assert state(checked, "fq") is (State.OK if has_fq else State.NO_DELAY)
    assert {state(checked, part) for part in ("bpffs", "program", "clsact")} == {State.OK}
    assert state(checked, "CNI results") is State.NOTE
    assert present() == before


def test_a_node_without_bpffs_can_have_no_limit(lab: Lab) -> None:
    checked, status = check(before=f"mount -t tmpfs none {BPFFS}")
    assert (checked.ability, status) == (Ability.NONE, 3)
    assert checked.problems[0].part == "bpffs"
    assert "agent.mountBpffs" in checked.problems[0].action


@pytest.mark.needs("tcx")
def test_programs_of_others_and_results_of_the_cni_plugin_are_found(lab: Lab, tmp_path: Path) -> None:
    client = lab.pod("client", ["10.1.1.2/24"])
    result = {
        "kind": "cniCacheV1",
        "containerId": "1" * 64,
        "ifName": "eth0",
        "networkName": "net",
        "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web"], ["K8S_POD_UID", "1"]],
        "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.1.2/24"}]},
    }
    (tmp_path / "net-1-eth0").write_text(json.dumps(result))
    program = bpf_program.verdict_program(bpf_program.OK, "cil_from_pod")
    link = bpf_program.attach_tcx(client.ifindex, "ingress", program)
    try:
        checked, _ = check("--cni-results", str(tmp_path))
    finally:
        os.close(link)
        os.close(program)
    assert state(checked, "CNI results") is State.OK
    found = next(each for each in checked.findings if each.part == "foreign programs")
    assert found.state is State.NOTE
    assert "cil_from_pod" in found.detail
