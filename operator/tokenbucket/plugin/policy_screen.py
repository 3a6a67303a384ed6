"""Print the tree of a policy for people."""

from __future__ import annotations

from rich.tree import Tree

from tokenbucket.core.status.summary import in_number
from tokenbucket.plugin.policy_tree import NodeBranch, PolicyBranch
from tokenbucket.plugin.screen import styled

_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}


def tree_of(branch: PolicyBranch, *, wide: bool) -> Tree:
    """Return the tree of one policy."""
    head = styled(f"{branch.namespace}/{branch.name}", "bold")
    head += styled(f"  {branch.reason}", _STYLES.get(branch.ready, "")) + styled(f", {branch.summary} pods")
    found = Tree(head, guide_style="dim")
    for direction, limit in sorted(branch.limits.items(), reverse=True):  # ingress first
        found.add(styled(f"{direction} {limit}"))
    if branch.ready != "True":
        found.add(styled(branch.message, _STYLES.get(branch.ready, "")))
    elif branch.degraded:
        found.add(styled(branch.degraded, "yellow"))
    for node in branch.nodes:
        _add_node(found, node, wide=wide)
    return found


def _add_node(policy: Tree, node: NodeBranch, *, wide: bool) -> None:
    style = "red" if node.entry.pods.failed else "yellow" if node.problem or node.entry.pods.degraded else ""
    found = policy.add(styled(f"node {node.name}  {node.counts}", style))
    if node.problem:
        found.add(styled(node.problem, "yellow"))
    if node.entry.rejected:
        found.add(styled(f"the agent rejects the policy: {node.entry.rejected}", "red"))
    for override in node.entry.overridden_by:
        pods = in_number(override.pods, "pod")
        found.add(styled(f"{override.direction} of {pods}: policy {override.policy} applies"))
    if wide:
        for direction, limit in node.entry.effective.items():
            found.add(styled(f"{direction} {limit}, action {node.entry.action.get(direction, '')}"))
    for pod in node.pods:
        found.add(styled(f"pod {pod.name}  {pod.direction}  {pod.reason}: {pod.message}", "red"))
    if node.omitted:
        found.add(styled(f"the report of the node leaves out {node.omitted} pods", "yellow"))
