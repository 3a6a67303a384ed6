"""The states of a pod, and the causes of a state beside the reasons of agents."""

from __future__ import annotations

import enum
from typing import Self

from tokenbucket.plugin.exit_codes import PluginExit


class State(enum.StrEnum):
    """The state of a pod, or of one direction of it. A later member outweighs an earlier one."""

    ENFORCED = "enforced as declared"
    NOT_LIMITED = "not limited"
    UNKNOWN = "unknown"
    PENDING = "not enforced yet"
    DEVIATES = "not enforced as declared"

    @property
    def exit_code(self) -> PluginExit:
        """Return the exit status of a command that shows this state."""
        return _EXIT_CODES[self]

    @property
    def weight(self) -> int:
        """Return the rank among the states: the heaviest one is the state of the whole."""
        return list(State).index(self)


_EXIT_CODES = {
    State.ENFORCED: PluginExit.DONE,
    State.NOT_LIMITED: PluginExit.NOT_LIMITED,
    State.UNKNOWN: PluginExit.UNKNOWN,
    State.PENDING: PluginExit.DEVIATES,
    State.DEVIATES: PluginExit.DEVIATES,
}


class Code(enum.StrEnum):
    """The causes beside the members of ``Reason``. The values are part of the output."""

    state: State
    meaning: str
    fix: str

    def __new__(cls, value: str, state: State, meaning: str, fix: str) -> Self:
        """Build a member whose string value is its public name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.state, member.meaning, member.fix = state, meaning, fix
        return member

    ENFORCED = (
        "Enforced", State.ENFORCED,
        "The agent enforces the limit as declared.",
        "None.",
    )  # fmt: skip
    OBSERVED = (
        "Observed", State.NOT_LIMITED,
        "The policy has `mode: Observe`: it counts excess packets and forwards them.",
        "To limit the pod, set `spec.mode` to Enforce.",
    )  # fmt: skip
    FINISHED = (
        "Finished", State.NOT_LIMITED,
        "The pod has ended. Limits apply to running pods.",
        "None.",
    )  # fmt: skip
    NO_POLICY = (
        "NoPolicy", State.NOT_LIMITED,
        "The namespace of the pod has no policy. A policy selects pods of its own namespace only.",
        "Create a TokenBucketPolicy in this namespace.",
    )  # fmt: skip
    NO_MATCH = (
        "NoMatchingPolicy", State.NOT_LIMITED,
        "No policy of the namespace selects the pod. The detail names the closest selector.",
        "Correct `spec.podSelector` of the policy, or the labels in the pod template of the workload.",
    )  # fmt: skip
    ANNOTATIONS_NOT_READ = (
        "AnnotationsNotRead", State.NOT_LIMITED,
        "No policy selects the pod. Its annotations declare a limit, and the agent does not read them.",
        "Set `agent.bandwidthAnnotations`, or create a TokenBucketPolicy.",
    )  # fmt: skip
    POLICY_OFF = (
        "PolicyOff", State.NOT_LIMITED,
        'The policies that select the pod have the mode "Off" or Disabled.',
        "To limit the pod, set `spec.mode` to Enforce.",
    )  # fmt: skip
    POLICY_INVALID = (
        "PolicyInvalid", State.DEVIATES,
        "A policy that selects the pod is invalid. Its last valid version can still be enforced.",
        "Correct the field that the detail names.",
    )  # fmt: skip
    PROTECTED_NAMESPACE = (
        "ProtectedNamespace", State.DEVIATES,
        "A policy selects the pod, but the namespace is protected.",
        "Add the label `tokenbucket.dev/allow-protected=true` to the policy, or move the workload.",
    )  # fmt: skip
    COMMAND_TOO_OLD = (
        "CommandTooOld", State.UNKNOWN,
        "A policy that selects the pod has parts that this command does not support.",
        "Install the version of this command that fits the chart.",
    )  # fmt: skip
    AGENT_REJECTS = (
        "AgentRejects", State.DEVIATES,
        "The agent of the node rejects the policy. Its last valid version can still be enforced.",
        "Correct the field that the detail names. If the policy is valid, upgrade the agent.",
    )  # fmt: skip
    AGENT_TOO_OLD = (
        "AgentTooOld", State.DEVIATES,
        "The agent does not support a part of the policy. The last valid version can still be enforced.",
        "Upgrade the chart, and check that the agent pod of the node runs the new image.",
    )  # fmt: skip
    ENFORCEMENT_OFF = (
        "EnforcementOff", State.DEVIATES,
        "The enforcement mode of the node is Off (kill switch): the agent has detached all limits.",
        "Change the mode at the place that the detail names.",
    )  # fmt: skip
    ENFORCEMENT_OBSERVE = (
        "EnforcementObserve", State.DEVIATES,
        "The enforcement mode of the node is Observe: limits only count packets.",
        "Change the mode at the place that the detail names.",
    )  # fmt: skip
    CLEANED_UP = (
        "CleanedUp", State.DEVIATES,
        "The agent has removed all limits of the node, because a cleanup was requested.",
        "Remove the key `cleanup` from the enforcement ConfigMap, or install the chart again.",
    )  # fmt: skip
    NOT_SCHEDULED = (
        "NotScheduled", State.PENDING,
        "The pod has no node yet.",
        "Wait. If the pod stays Pending, read its events with `kubectl describe pod`.",
    )  # fmt: skip
    NODE_MISSING = (
        "NodeMissing", State.UNKNOWN,
        "The node of the pod no longer exists.",
        "Wait until Kubernetes deletes the pod, or delete it.",
    )  # fmt: skip
    NODE_WITHOUT_AGENTS = (
        "NodeWithoutAgents", State.DEVIATES,
        "No agent can run on the node: it is a virtual node, or its system is not Linux.",
        "Schedule the pod on a Linux node, for example with a nodeSelector.",
    )  # fmt: skip
    NO_AGENT = (
        "NoAgent", State.DEVIATES,
        "No agent has ever reported from the node, and no agent pod is there: the pod is not limited.",
        "Install the chart, and check `agent.nodeSelector`, `agent.tolerations` and the DaemonSet's events.",
    )  # fmt: skip
    AGENT_GONE = (
        "AgentGone", State.UNKNOWN,
        "The node has no agent pod any more. Existing limits stay active. New pods are not limited.",
        "Check `agent.nodeSelector`, `agent.tolerations` and the events of the DaemonSet.",
    )  # fmt: skip
    AGENT_NOT_SCHEDULED = (
        "AgentNotScheduled", State.UNKNOWN,
        "The agent pod is not bound to the node. Existing limits stay active. New pods are not limited.",
        "Remove the cause that the detail names, such as missing memory or a taint.",
    )  # fmt: skip
    AGENT_NOT_READY = (
        "AgentNotReady", State.UNKNOWN,
        "The agent pod of the node is not ready. Existing limits stay active. New pods may be unlimited.",
        "Read the log and the events of the agent pod that the detail names.",
    )  # fmt: skip
    AGENT_SILENT = (
        "AgentSilent", State.UNKNOWN,
        "The agent of the node does not report. Existing limits stay active. New pods may be unlimited.",
        "Read the log of the agent pod. Check its connection to the API server.",
    )  # fmt: skip
    UPDATING = (
        "Updating", State.PENDING,
        "The agent has not applied the current policy or enforcement mode yet. An earlier one can apply.",
        "Wait. If this does not change within a minute, read the log of the agent.",
    )  # fmt: skip
    PENDING = (
        "Pending", State.PENDING,
        "The agent has not enforced the limit of the pod yet.",
        "Wait. If this does not change within a minute, read the log of the agent.",
    )  # fmt: skip
    REPORT_INCOMPLETE = (
        "ReportIncomplete", State.UNKNOWN,
        "The report of the node leaves out policies or pods, because it has too many entries.",
        "Read the live figures. They need a separate right.",
    )  # fmt: skip
    RIGHT_MISSING = (
        "RightMissing", State.UNKNOWN,
        "The report of the node cannot be read, so the state of the pod is unknown.",
        "Ask an administrator for the right that the detail names.",
    )  # fmt: skip
