"""The agent needs a bpffs for the pins."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tokenbucket.bpf.pins import has_bpffs, mount_bpffs

AGENT = Path(__file__).parents[2] / "charts/tokenbucket/templates/_agent.tpl"


def test_another_file_system_is_not_a_bpffs(tmp_path: Path) -> None:
    """Reject a folder of another file system, and a folder that does not exist."""
    mount_bpffs()
    assert has_bpffs()
    assert not has_bpffs(tmp_path)
    assert not has_bpffs(tmp_path / "missing")


def test_the_init_container_of_the_chart_mounts_a_missing_bpffs_once() -> None:
    """Run the init container twice in a mount namespace without a bpffs."""
    [command] = re.findall(r"- (test .+ mount -t bpf .+)", AGENT.read_text())
    unmount = "while umount --lazy /sys/fs/bpf 2>/dev/null; do :; done"
    count = "grep --count ' /sys/fs/bpf bpf ' /proc/self/mounts"
    script = f"{unmount}; {command} && {command} && {count}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_an_agent_of_a_cluster_does_not_run_on_pins_that_end_with_its_container() -> None:
    """If the node has no bpffs, the error names the chart value that mounts one."""
    unmount = "while umount --lazy /sys/fs/bpf 2>/dev/null; do :; done"
    script = f'{unmount}; exec "$@"'
    agent = [sys.executable, "-m", "tokenbucket", "agent", "--node", "here"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *agent], capture_output=True, text=True
    )
    assert done.returncode
    assert "the node has no bpffs; mount it at boot, or set agent.mountBpffs" in done.stderr
