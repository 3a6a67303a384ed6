"""Print the tree of a policy for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from rich.tree import Tree

from tokenbucket.core.status.summary import in_number
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.codes import State
from tokenbucket.plugin.explain.screen import STYLES
from tokenbucket.plugin.pod_states import PodState
from tokenbucket.plugin.policy_tree import NodeBranch, PolicyBranch
from tokenbucket.plugin.screen import styled

_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}
_MOST_PODS = 20
"""Maximum number of pods that are named below one node."""


def tree_of(branch: PolicyBranch, *, wide: bool) -> Tree:
    """Return the tree of one policy."""
    head = styled(f"{branch.namespace}/{branch.name}", "bold")
    style = "yellow" if branch.degraded else _STYLES.get(branch.ready, "")
    head += styled(f"  {branch.reason}", style) + styled(f", {branch.summary} pods")
    found = Tree(head, guide_style="dim")
    for direction, limit in sorted(branch.limits.items(), reverse=True):  # ingress first
        found.add(styled(f"{direction} {limit}"))
    if branch.ready != "True":
        found.add(styled(branch.message, _STYLES.get(branch.ready, "")))
    elif branch.degraded:
        found.add(styled(branch.degraded, "yellow"))
    for node in branch.nodes:
        _add_node(found, node, wide=wide)
    _add_states(found, branch.states)
    return found


def annotations_tree(states: Sequence[PodState]) -> Tree:
    """Return the tree of the pods whose annotations declare limits."""
    enforced = sum(each.state is State.ENFORCED for each in states)
    head = styled("Pods with annotations", "bold") + styled(f"  {enforced}/{len(states)} pods")
    found = Tree(head, guide_style="dim")
    _add_states(found, states)
    return found


def _add_states(tree: Tree, states: Sequence[PodState]) -> None:
    """Add the pods by node, with a leaf for each pod that is not limited as declared."""
    for node, group in groupby(
        sorted(states, key=lambda each: (each.node, each.namespace, each.name)), _node_of
    ):
        pods = list(group)
        counts = Counter(each.state for each in pods)
        texts = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        worst = max(counts, key=lambda state: state.weight)
        name = f"node {node}" if node else "without a node"
        branch = tree.add(
            styled(
                f"{name}  {in_number(len(pods), 'pod')}: {texts}",
                "" if worst is State.ENFORCED else STYLES[worst],
            )
        )
        deviating = [each for each in pods if each.state.exit_code is PluginExit.DEVIATES]
        for pod in deviating[:_MOST_PODS]:
            branch.add(styled(f"pod {pod.namespace}/{pod.name}  {_causes(pod)}", STYLES[pod.state]))
        if len(deviating) > _MOST_PODS:
            branch.add(styled(f"and {in_number(len(deviating) - _MOST_PODS, 'more pod')}", "dim"))


def _node_of(state: PodState) -> str:
    return state.node


def _causes(pod: PodState) -> str:
    causes = [each for each in pod.causes if each.state.exit_code is PluginExit.DEVIATES]
    return "; ".join(
        f"{each.direction}  {each.code}: {each.detail or each.meaning}".lstrip() for each in causes
    )


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
        found.add(styled(f"the report of the node leaves out {in_number(node.omitted, 'pod')}", "yellow"))
