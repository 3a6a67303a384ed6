"""The reasons for which a limit is not enforced, or is not enforced as declared.

To add a reason, add a member here. The status, the conditions, the metrics, the alerts and the reference page
read the attributes of the members.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self


class Effect(enum.StrEnum):
    """The state of a limit that has a reason. The values are labels of metrics."""

    PENDING = "pending"
    """The limit is not enforced yet. The agent enforces it without manual action."""
    DEGRADED = "degraded"
    """The limit is enforced, but not as declared: excess packets are dropped, no guard runs, or another
    component also limits the pod."""
    EXEMPT = "exempt"
    """Limits do not apply to the pod. This is intended."""
    FAILED = "failed"
    """The limit is not enforced on all traffic of the pod, until an administrator removes the cause."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The attributes of a reason."""

    name: str
    """The public name."""
    effect: Effect
    cause: str
    """The cause, for the reference page."""
    fix: str
    """The action that removes the cause, for the reference page."""
    short: str = ""
    """The text in the status field ``action``, such as "no fq". Empty unless the effect is DEGRADED."""
    needs_slot: bool = True
    """Whether the limit keeps a slot, and so its tokens, while the agent finds no interface of the pod."""


class Reason(enum.StrEnum):
    """Why a limit is not enforced as declared. Values are part of the API, attributes those of ``Spec``."""

    effect: Effect
    cause: str
    fix: str
    short: str
    needs_slot: bool

    def __new__(cls, spec: Spec) -> Self:
        """Build a member whose string value is the public name of the reason."""
        member = str.__new__(cls, spec.name)
        member._value_ = spec.name
        member.effect, member.needs_slot = spec.effect, spec.needs_slot
        member.cause, member.fix, member.short = spec.cause, spec.fix, spec.short
        return member

    NO_ADDRESS = Spec(
        "NoAddress",
        Effect.PENDING,
        cause="The pod has no IP address yet.",
        fix="Wait. If the pod stays without an address, check its network plugin.",
        needs_slot=False,
    )
    NO_INTERFACE = Spec(
        "NoInterface",
        Effect.FAILED,
        cause=(
            "No interface of this node leads to a network namespace with the pod's address, and no namespace "
            "in `/run/netns` has this address. If the pod was limited before, the limit stays attached to "
            "its last interface."
        ),
        fix=(
            "Check that the pod runs on this node, that its address is correct, and that the agent sees "
            "`/run/netns` (`agent.enterPods`)."
        ),
    )
    INTERFACE_NOT_LIMITED = Spec(
        "InterfaceNotLimited",
        Effect.FAILED,
        cause=(
            "The pod has an interface without an end on the node (macvlan, ipvlan, netkit, virtual function) "
            "where the agent cannot attach the limit. Or an interface leads past the node: a veth to another "
            "pod, or a tun or WireGuard interface with an address of the pod. Other interfaces are limited."
        ),
        fix=(
            "Read the message. To enter pods, the agent needs the capability SYS_ADMIN and the folder "
            "`/run/netns`; the chart grants both if `agent.enterPods` is true. Replace an interface that "
            "leads past the node, or exclude the pod."
        ),
    )
    HOST_NETWORK = Spec(
        "HostNetwork",
        Effect.EXEMPT,
        cause=(
            "The pod uses the network of the node, so the agent cannot separate the traffic of the pod from "
            "the traffic of the node. Limits do not apply to such pods, as with NetworkPolicy."
        ),
        fix="None. To limit the pod, create it without `hostNetwork: true`, in its own network.",
        needs_slot=False,
    )
    ADDRESS_CONFLICT = Spec(
        "AddressConflict",
        Effect.FAILED,
        cause=(
            "Other pods or namespaces also have all addresses of the pod, and no CNI result names its own "
            "namespace. If the pod was limited before, the limit stays attached to its last interface."
        ),
        fix=(
            "Check whether a pod configures an address of another pod. Remove outdated Pod documents. If a "
            "document was corrected while no agent ran, remove it and add it again."
        ),
        needs_slot=False,
    )
    INVALID_ANNOTATION = Spec(
        "InvalidAnnotation",
        Effect.FAILED,
        cause=(
            "`agent.bandwidthAnnotations` is true, and an annotation of the pod declares an invalid limit. "
            "The valid annotations of the pod are enforced."
        ),
        fix="Correct the annotation that the message names, or create a policy that selects the pod.",
        needs_slot=False,
    )
    ALSO_LIMITED = Spec(
        "AlsoLimited",
        Effect.DEGRADED,
        cause=(
            "Another component also limits the pod: the CNI bandwidth plugin, Calico, or Cilium. The limit "
            "of tokenbucket is active. The lower rate applies, and packets can be delayed twice."
        ),
        fix=(
            "Let only one component limit the pod: remove the bandwidth plugin from the CNI configuration "
            "and create the pod again, turn off Cilium's bandwidth manager, or remove the annotations."
        ),
        short="also limited by another component",
    )
    NO_FREE_SLOT = Spec(
        "NoFreeSlot",
        Effect.FAILED,
        cause="All slots of the node are in use.",
        fix=(
            "Select fewer pods, or increase the number of slots: clean up the node (`tokenbucket detach "
            "--all`, or `cleanup` in the enforcement ConfigMap), then raise `--slots` or `agent.slots`."
        ),
    )
    NO_FQ = Spec(
        "NoFq",
        Effect.DEGRADED,
        cause=(
            "The agent could not add an fq qdisc to the interface, usually because the kernel has no fq; the "
            "message contains the error. Excess packets are dropped, not delayed."
        ),
        fix="Load or build the kernel module sch_fq. The agent retries every minute.",
        short="no fq",
    )
    FOREIGN_QDISC = Spec(
        "ForeignQdisc",
        Effect.DEGRADED,
        cause=(
            "The root qdisc of the interface belongs to another program. Excess packets are dropped, not "
            "delayed."
        ),
        fix="Remove the qdisc that the message names, or declare `exceedAction: Drop`.",
        short="foreign qdisc",
    )
    NO_NAMESPACE = Spec(
        "NoNamespace",
        Effect.DEGRADED,
        cause=(
            "The agent cannot enter the pod's network namespace to delay egress traffic. Excess packets are "
            "dropped on the node, not delayed."
        ),
        fix=(
            "Read the message. The agent needs the capability SYS_ADMIN and the folder `/run/netns`; the "
            "chart grants both if `agent.enterPods` is true."
        ),
        short="pod's namespace not entered",
    )
    UNBOUNDED_QUEUE = Spec(
        "UnboundedQueue",
        Effect.DEGRADED,
        cause=(
            "The buckets of `perPeer` could queue more than 16 MiB. Excess packets are dropped, not delayed."
        ),
        fix=(
            "Declare a rate for the pod beside `perPeer`, lower the rate or burst of `perPeer`, or declare "
            "`exceedAction: Drop`."
        ),
        short="unbounded queue",
    )
    CONTENDED_IN_POD = Spec(
        "ContendedInPod",
        Effect.DEGRADED,
        cause=(
            "A process removed tokenbucket's filter from the pod-side interface more than five times in a "
            "minute. Excess egress packets are dropped on the node, not delayed."
        ),
        fix=(
            "Remove the capability NET_ADMIN from the pod, or declare `exceedAction: Drop`. The agent "
            "retries every minute."
        ),
        short="contended in the pod",
    )
    NO_FILTER_IN_POD = Spec(
        "NoFilterInPod",
        Effect.DEGRADED,
        cause=(
            "The agent cannot attach a filter to the pod-side interface. Another program's qdisc or filter "
            "is in its place, or the pod has `spec.overhead` and may run in a virtual machine. Excess egress "
            "packets are dropped on the node, not delayed."
        ),
        fix=(
            "Remove the qdisc or filter that the message names, or declare `exceedAction: Drop`. For virtual "
            "machines without `spec.overhead`, add an overhead to the RuntimeClass. The agent retries every "
            "minute."
        ),
        short="no filter in the pod",
    )
    NO_QUEUE_IN_POD = Spec(
        "NoQueueInPod",
        Effect.DEGRADED,
        cause=(
            "Ingress packets bypass the queue of the host-side interface: another component redirects them, "
            "or the pod has an interface without an end on the node, such as macvlan. The agent cannot add "
            "a queue (`ifb` and `fq`) inside the pod. The message contains the cause. Excess packets are "
            "dropped."
        ),
        fix=(
            "Load the kernel module `ifb`, permit tcx (`agent.attach`), or remove the interface or program "
            "that the message names. Otherwise declare `exceedAction: Drop`. The agent retries every minute."
        ),
        short="no queue in the pod",
    )
    BYPASSED_IN_POD = Spec(
        "BypassedInPod",
        Effect.DEGRADED,
        cause="Most egress packets bypass the filter in the pod. The guard on the node drops the excess.",
        fix="Remove the capabilities NET_RAW and NET_ADMIN from the pod, or accept the drops.",
        short="bypassed in the pod",
    )
    NO_GUARD = Spec(
        "NoGuard",
        Effect.DEGRADED,
        cause="The guard does not run on the node. A pod with NET_RAW or NET_ADMIN can bypass its limit.",
        fix="Remove the cause that the message names, or both capabilities from the pod.",
        short="no guard",
    )
    SHADOWED = Spec(
        "Shadowed",
        Effect.FAILED,
        cause=(
            "A program of another component runs before tokenbucket's filter and can end the processing of "
            "packets. Packet counters do not prove that packets still reach the filter."
        ),
        fix=(
            "Let the agent choose another attachment: set `agent.attach: auto` and `agent.enterPods: true`, "
            "and use Linux 6.6 or later. Otherwise detach the program that the message names."
        ),
    )
    BYPASSED = Spec(
        "Bypassed",
        Effect.FAILED,
        cause=(
            "The pod's interface counts more than twice as many packets as tokenbucket's filter: another "
            "program ends or redirects packets before they reach the filter."
        ),
        fix=(
            "Set `agent.enterPods: true`, so that the agent can attach the limit inside the pod. Otherwise "
            "make the network plugin use the host-side interface."
        ),
    )
    FOREIGN_FILTER = Spec(
        "ForeignFilter",
        Effect.FAILED,
        cause="Another program's filter or qdisc has the place that tokenbucket's filter needs.",
        fix="Remove the filter or qdisc that the message names.",
    )
    CONTENDED = Spec(
        "Contended",
        Effect.FAILED,
        cause=(
            "Another program removed tokenbucket's filter more than five times in a minute. The message "
            "names the program if the agent can see its process."
        ),
        fix="Configure the other program not to manage this interface.",
    )
    KERNEL_REJECTS = Spec(
        "KernelRejects",
        Effect.FAILED,
        cause=(
            "The kernel rejected the attachment or the update of the limit at least twice. An earlier "
            "version of the limit stays enforced."
        ),
        fix="Read the kernel's error in the message. The agent retries with pauses of up to 30 seconds.",
    )
