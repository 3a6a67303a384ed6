"""The agent as a process of its node: signals, memory, CPU time."""

from __future__ import annotations

from cluster.node_shell import NodeShell

_FIND = """
for each in /proc/[0-9]*; do
    tr '\\0' ' ' 2>/dev/null <$each/cmdline | grep -q '[-]m tokenbucket agent' && echo ${each#/proc/}
done
true
"""
_TICKS_PER_S = 100
"""As /proc/PID/stat has it on every architecture that Kubernetes runs on."""


def agent_pids(shell: NodeShell, node: str) -> list[str]:
    """Return the process ids of the agent and its children, as the node sees them."""
    found = shell.run(node, "sh", "-c", _FIND).split()
    assert found, f"no agent on {node}"
    return sorted(found, key=int)


def signal_agent(shell: NodeShell, node: str, name: str) -> None:
    """Send a signal to the agent's processes."""
    shell.run(node, "kill", f"-{name}", *agent_pids(shell, node))


def resident_bytes(shell: NodeShell, node: str) -> int:
    """Return the resident memory of the agent's processes."""
    status = [f"/proc/{pid}/status" for pid in agent_pids(shell, node)]
    lines = shell.run(node, "grep", "-h", "^VmRSS:", *status).splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines)


def processor_s(shell: NodeShell, node: str) -> float:
    """Return the CPU time of the agent's processes in seconds, since their start."""
    lines = shell.run(node, "cat", *(f"/proc/{pid}/stat" for pid in agent_pids(shell, node))).splitlines()
    # What comes behind the name, which may contain spaces.
    fields = [line.rpartition(")")[2].split() for line in lines]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS_PER_S
