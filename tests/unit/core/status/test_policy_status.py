"""The status of a policy, computed from the reports of all nodes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.api.test_node_report import STATUS_SCHEMA, misfits
from tokenbucket import __version__
from tokenbucket.controller.index import ReportIndex
from tokenbucket.core.api.node_report import (
    AgentInfo,
    NodeReport,
    Override,
    PodCounts,
    PodReport,
    PolicyReport,
    ReasonCount,
)
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.core.status.policy_status import policy_status
from tokenbucket.core.status.summary import Agents, PolicyHead, ReportedNode

HEAD = PolicyHead("shop", "web", "uid-1", 4)
THEN, NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"
STATES = [field.name for field in dataclasses.fields(PodCounts)]
WORDS = "100Mbit/s, burst 625kB, Delay 100ms"


@dataclasses.dataclass(frozen=True)
class Reported(ReportedNode):
    """A report that is recent, or is not."""

    alive: bool = True


def reported(**fields: Any) -> PolicyReport:
    """Return the report of one node about the policy."""
    pods = PodCounts(**{name: fields.pop(name) for name in STATES if name in fields})
    given = {"namespace": "shop", "name": "web", "uid": "uid-1", "generation": 4, "pods": pods, **fields}
    return PolicyReport(**given)


def node(
    name: str = "a", *, alive: bool = True, since: str = THEN, enforcement: str = "Enforce", **fields: Any
):
    """Return a node with this report."""
    report = NodeReport(agent=AgentInfo(__version__), enforcement=enforcement, policies=(reported(**fields),))
    return Reported(name, report, since, alive=alive)


def good(name: str = "a", pods: int = 3, **fields: Any) -> Reported:
    """Return a node that enforces the policy on all its pods."""
    return node(name, matched=pods, programmed=pods, **fields)


def over(policy: str, pods: int = 1, direction: str = "ingress") -> tuple[Override, ...]:
    """Return a node on which another policy applies instead."""
    return (Override(policy, direction, pods),)


def status(
    *nodes: Reported,
    head: PolicyHead = HEAD,
    previous: Iterable[object] = (),
    now: str = NOW,
    agents: int = 1,
    silent: Iterable[str] = (),
    unseen: Iterable[str] = (),
    unsupported: Iterable[str] = (),
) -> dict[str, Any]:
    index = ReportIndex()
    index.update(nodes, [node.name for node in nodes if node.alive])
    state = Agents(bool(agents), tuple(silent), tuple(unseen), tuple(unsupported))
    return policy_status(head, index.of(head), previous, now, state)


def condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(each for each in document["conditions"] if each["type"] == kind)


def verdict(document: dict[str, Any], kind: str = "Programmed") -> tuple[str, str]:
    found = condition(document, kind)
    return found["status"], found["reason"]


def message(document: dict[str, Any], kind: str = "Programmed") -> str:
    return condition(document, kind)["message"]


def test_a_policy_enforced_everywhere_is_ready() -> None:
    """Compare the whole document."""
    effective = {"effective": {"ingress": WORDS}, "action": {"ingress": "Delay"}}
    document = status(good("a", 1, **effective), good("b", 2, **effective))
    common = {"status": "True", "observedGeneration": 4, "lastTransitionTime": NOW}
    active = {"reason": "Programmed", "message": "enforced on 3 of 3 pods on 2 nodes"}
    assert document == {
        "observedGeneration": 4,
        "rates": {"ingress": "100Mbit/s"},
        "effective": {"ingress": WORDS},
        "action": "Delay",
        "pods": {"matched": 3, "programmed": 3, "degraded": 0, "failed": 0, "exempt": 0, "summary": "3/3"},
        "nodes": {"matched": 2, "unavailable": 0},
        "conditions": [
            {"type": "Accepted", **common, "reason": "Accepted", "message": "the policy is valid"},
            {"type": "Programmed", **common, **active},
            {
                "type": "Degraded",
                **common,
                "status": "False",
                "reason": "AsDeclared",
                "message": "no limit differs from its declaration",
            },
            {"type": "Ready", **common, **active},
        ],
    }


def test_a_policy_without_pods_is_unknown_without_an_agent() -> None:
    """Expect this after an uninstallation, or before the first agent starts."""
    document = status(agents=0)
    assert verdict(document) == verdict(document, "Ready") == ("Unknown", "AgentUnavailable")
    assert message(document).startswith("no agent reports from any node")


def test_a_policy_that_selects_no_pod_is_ready() -> None:
    """Name the namespace and the selector in the message."""
    document = status()
    assert verdict(document) == verdict(document, "Ready") == ("True", "NoMatchingPods")
    assert message(document) == "no pod in namespace shop matches spec.podSelector"
    assert document["pods"]["summary"] == "0/0"
    assert "effective" not in document
    assert "action" not in document


def test_a_limit_that_is_enforced_nowhere_is_shown_as_declared() -> None:
    """Prefer the limit that is enforced on some pods."""
    head = replace(HEAD, declared={"ingress": WORDS, "egress": WORDS})
    assert status(head=head)["effective"] == {"ingress": WORDS, "egress": WORDS}
    document = status(good(effective={"egress": "1Mbit/s"}), head=head)
    assert document["effective"] == {"ingress": WORDS, "egress": "1Mbit/s"}


def test_a_policy_that_the_controller_rejects_is_invalid_without_any_node() -> None:
    """Show the cause in the condition Ready."""
    document = status(head=dataclasses.replace(HEAD, rejected="spec.ingress: is empty"))
    assert verdict(document, "Accepted") == verdict(document, "Ready") == ("False", "Invalid")
    assert message(document, "Accepted") == message(document, "Ready") == "spec.ingress: is empty"
    assert verdict(document) == ("False", "Failed")
    assert message(document) == "the policy is invalid; see the condition Accepted"


def test_an_agent_that_rejects_a_policy_does_not_make_it_invalid() -> None:
    """Keep one node from stopping the deployments of the whole cluster. The policy needs no edit."""
    document = status(good("a"), node("b", rejected="spec.egress: unknown"))
    assert verdict(document, "Accepted") == ("True", "Accepted")
    assert verdict(document) == verdict(document, "Ready") == ("False", "Rejected")
    assert message(document).startswith("rejected on 1 node (b): spec.egress: unknown")
    assert message(document).endswith("; enforced on 3 of 3 pods")
    assert "Stalled" not in {each["type"] for each in document["conditions"]}


def test_a_rejection_by_an_agent_of_another_version_names_both() -> None:
    """Expect that an older agent supports less."""
    older = node("b", rejected="spec.egress: unknown")
    older = replace(older, report=replace(older.report, agent=AgentInfo("0.0.9")))
    assert f"; the controller has version {__version__}, the agent 0.0.9;" in message(status(older))


def test_a_rejection_of_an_earlier_generation_is_ignored() -> None:
    """Wait until the node reports the current generation."""
    document = status(node("b", rejected="spec.egress: unknown", generation=3))
    assert verdict(document, "Accepted") == ("True", "Accepted")
    assert verdict(document) == ("False", "Updating")


def test_a_policy_in_mode_off_has_the_reason_off() -> None:
    head = replace(HEAD, mode=Mode.OFF)
    document = status(node("a", matched=1, off=1), node("b", matched=1, off=1, enforcement="Off"), head=head)
    assert verdict(document) == ("False", "Off")
    assert verdict(document, "Ready") == ("True", "Off")
    assert message(document) == "spec.mode is Off: 2 selected pods without this policy"


def test_a_policy_that_is_turned_off_is_ready_only_after_all_nodes_have_detached_it() -> None:
    """Wait for nodes that have not reported the edit, and for silent nodes."""
    head, off = replace(HEAD, mode=Mode.OFF), node("a", matched=1, off=1)
    assert verdict(status(off, head=head, unseen=["b"]), "Ready") == ("False", "Updating")
    assert verdict(status(off, good("b", generation=3), head=head), "Ready") == ("False", "Updating")
    assert verdict(status(off, head=head, silent=["b"]), "Ready") == ("Unknown", "AgentUnavailable")
    assert verdict(status(off, good("b", alive=False), head=head), "Ready")[0] == "Unknown"
    assert verdict(status(head=head), "Ready") == ("True", "Off")


def test_pods_without_a_limit_because_of_the_enforcement_mode_name_the_mode() -> None:
    """Count the policy as not enforced if only some nodes are off."""
    document = status(good("a"), node("b", matched=2, off=2, enforcement="Off"))
    assert verdict(document) == ("False", "Off")
    assert message(document) == (
        "not enforced on 2 of 5 pods: the enforcement mode is Off on 1 node (b), "
        "set by the ConfigMap or the node label"
    )


def test_one_failed_pod_fails_the_policy_and_is_explained() -> None:
    """Leave reasons that do not fail a pod to their own condition."""
    reasons = (
        ReasonCount("NoFq", 3, "no fq here"),
        ReasonCount("NoFreeSlot", 1, "all slots are in use"),
        ReasonCount("NoAddress", 1, "no address yet"),
    )
    document = status(good("a"), node("b", matched=4, programmed=3, degraded=3, failed=1, reasons=reasons))
    assert verdict(document) == verdict(document, "Ready") == ("False", "Failed")
    assert message(document) == (
        "not enforced on 1 of 7 pods: NoFreeSlot on 1 pod on 1 node (all slots are in use)"
        "; see TokenBucketNode b"
    )
    assert document["pods"]["summary"] == "6/7"
    assert document["pods"]["failed"] == 1


def test_pods_of_a_silent_agent_are_matched_and_not_programmed() -> None:
    document = status(
        good("a"), good("b", 5, alive=False, since=LATER), good("c", 7, alive=False, since=THEN)
    )
    assert verdict(document) == verdict(document, "Ready") == ("Unknown", "AgentUnavailable")
    assert message(document) == f"12 pods on 2 nodes (last enforced at {THEN}): no agent reports from b, c"
    assert document["pods"] == {
        "matched": 15,
        "programmed": 3,
        "degraded": 0,
        "failed": 0,
        "exempt": 0,
        "summary": "3/15",
    }
    assert document["nodes"] == {"matched": 3, "unavailable": 2}


def test_limits_that_a_silent_agent_never_enforced_are_not_counted() -> None:
    """Expect another state in the last report."""
    assert f"1 pod on 1 node (last reported at {THEN}):" in message(
        status(node("a", matched=1, pending=1, alive=False))
    )
    assert "last reported" in message(status(good("a", generation=3, alive=False)))
    assert message(status(good("a", 1, alive=False, since=""))) == "1 pod on 1 node: no agent reports from a"


def test_a_silent_agent_without_a_pod_of_the_policy_changes_nothing() -> None:
    """Ignore its earlier rejection of the policy."""
    document = status(good("a"), node("b", rejected="wrong", alive=False))
    assert verdict(document, "Ready") == ("True", "Programmed")
    assert document["nodes"] == {"matched": 1, "unavailable": 0}


def test_a_silent_agent_leaves_the_policy_degraded() -> None:
    """Avoid two events for each restart of an agent."""
    document = status(good("a", degraded=3, reasons=(ReasonCount("NoFq", 3, ""),), alive=False))
    assert verdict(document, "Degraded") == ("True", "NoFq")
    assert document["pods"]["degraded"] == 0


def test_limits_of_a_silent_agent_are_still_shown() -> None:
    """Show them, because limits outlive the agent."""
    document = status(good("a", effective={"egress": WORDS}, action={"egress": "Delay"}, alive=False))
    assert document["effective"] == {"egress": WORDS}
    assert document["action"] == "Delay"


def test_a_policy_that_another_overrides_on_all_pods_names_it_and_the_fix() -> None:
    """Name all policies with precedence, the one with the most pods first."""
    one = node("a", matched=1, overridden=1, overridden_by=over("shop/first"))
    document = status(one)
    assert verdict(document) == ("False", "Overridden")
    assert verdict(document, "Ready") == ("True", "Overridden")
    assert message(document) == (
        "overridden by shop/first (ingress of 1 pod); "
        "to change that, raise spec.priority or change a podSelector"
    )
    both = (*over("shop/second", 2), *over("shop/first", 1, "egress"), *over("shop/second", 1, "egress"))
    document = status(one, node("b", matched=2, overridden=2, overridden_by=both))
    assert message(document).startswith(
        "overridden by shop/second (ingress of 2 pods, egress of 1 pod), "
        "shop/first (ingress of 1 pod, egress of 1 pod); to change that, raise"
    )


def test_three_of_many_overriding_policies_are_named() -> None:
    """Count the others."""
    document = status(node("a", matched=5, overridden=5, overridden_by=sum(map(over, "abcde"), ())))
    named = "a (ingress of 1 pod), b (ingress of 1 pod), c (ingress of 1 pod) and 2 more"
    assert message(document).startswith(f"overridden by {named}; to change that, raise")


def test_an_observing_policy_shows_why_one_of_a_lower_priority_is_enforced() -> None:
    """Explain that a higher priority alone does not help."""
    head = replace(HEAD, mode=Mode.OBSERVE)
    document = status(node("a", matched=1, overridden=1, overridden_by=over("shop/first")), head=head)
    assert "(a policy in Observe mode never overrides a policy in Enforce mode)" in message(document)


def test_a_policy_that_another_overrides_on_some_pods_is_enforced() -> None:
    """Support a default for all pods with an exception for some."""
    others = over("shop/other", 2)
    document = status(node("a", matched=5, programmed=3, overridden=2, overridden_by=others))
    assert verdict(document) == ("True", "PartlyOverridden")
    assert message(document) == (
        "enforced on 3 of 5 pods on 1 node; overridden by shop/other (ingress of 2 pods)"
    )
    assert document["pods"]["summary"] == "3/5"


def test_a_policy_that_another_overrides_in_one_direction_names_it() -> None:
    """Count its pods as programmed, because the other direction is enforced."""
    head = replace(HEAD, declared={"ingress": WORDS, "egress": WORDS})
    others = over("shop/other", 2, "egress")
    document = status(node("a", matched=2, programmed=2, overridden_by=others), head=head)
    assert verdict(document) == verdict(document, "Ready") == ("True", "PartlyOverridden")
    assert document["rates"] == {"ingress": "100Mbit/s", "egress": "overridden"}
    assert message(document) == (
        "enforced on 2 of 2 pods on 1 node; overridden by shop/other (egress of 2 pods)"
    )


def test_an_observing_policy_is_ready_with_the_reason_observed() -> None:
    """Distinguish it from an enforced policy."""
    document = status(
        node("a", matched=2, programmed=2, observed=2, action={"ingress": "Observe"}),
        head=replace(HEAD, mode=Mode.OBSERVE),
    )
    assert verdict(document) == verdict(document, "Ready") == ("True", "Observed")
    assert message(document) == "packets only counted on 2 of 2 pods on 1 node"
    assert document["action"] == "Observe"


def test_an_enforcing_policy_on_nodes_in_mode_observe_is_not_ready() -> None:
    """Name the nodes and the place of the mode."""
    observing = node("b", enforcement="Observe", matched=2, programmed=2, observed=2)
    document = status(good("a"), observing)
    assert verdict(document) == verdict(document, "Ready") == ("False", "Observed")
    assert message(document).startswith("packets only counted on 2 of ")
    assert "the enforcement mode is Observe on 1 node (b), set by the ConfigMap or the node label" in message(
        document
    )


def test_a_policy_newer_than_the_report_of_a_silent_agent_is_unknown() -> None:
    """Assume neither that it selects no pod, nor that it is enforced."""
    document = status(silent=["b"])
    assert verdict(document) == verdict(document, "Ready") == ("Unknown", "AgentUnavailable")
    assert message(document) == (
        "no agent reports from b: the pods selected there are unknown; check the agent pods"
    )
    document = status(node("a", matched=2, programmed=2), silent=["b"])
    assert verdict(document) == ("Unknown", "AgentUnavailable")
    assert message(document).endswith("; enforced on 2 of 2 pods elsewhere")


def test_a_policy_is_updating_until_all_nodes_have_reported_its_generation() -> None:
    """Count the pods that an earlier generation limits: their limits stay active."""
    document = status(good("a"), good("b", generation=3), good("c", generation=3))
    assert verdict(document) == verdict(document, "Ready") == ("False", "Updating")
    assert message(document) == (
        "2 nodes (b, c) have not reported generation 4 yet; an earlier generation is enforced on 6 pods"
    )
    assert document["pods"]["summary"] == "9/9"


def test_a_node_without_an_entry_counts_only_if_its_agent_has_used_the_generation() -> None:
    """Report the nodes that may select pods, with and without other entries."""
    for entries in ((), (good("a"),)):
        document = status(*entries, unseen=["b"])
        assert verdict(document, "Ready") == ("False", "Updating")
        assert message(document) == "1 node (b) has not reported generation 4 yet"


def test_a_policy_names_the_agents_that_do_not_support_it() -> None:
    """Stay accepted: these agents keep the last valid version."""
    document = status(good("a"), unsupported=["b"])
    assert verdict(document, "Accepted") == ("True", "Accepted")
    assert message(document, "Accepted") == (
        "the policy is valid; 1 node (b) cannot enforce it before an upgrade of the agent"
    )


def test_pods_without_an_address_are_pending() -> None:
    """Name the cause in the message."""
    reasons = (ReasonCount("NoAddress", 2, "the pod has no address yet"),)
    document = status(node("a", matched=3, programmed=1, pending=2, reasons=reasons))
    assert verdict(document) == ("False", "Pending")
    assert message(document) == (
        "not yet enforced on 2 of 3 pods: NoAddress on 2 pods on 1 node (the pod has no address yet)"
    )


def test_pods_that_a_report_does_not_account_for_are_pending() -> None:
    """Never become ready by omission."""
    document = status(node("a", matched=3, programmed=1))
    assert verdict(document) == ("False", "Pending")
    assert message(document) == "not yet enforced on 2 of 3 pods"
    assert verdict(status(good("a", pending=1))) == ("False", "Pending")


def test_reports_about_another_uid_are_ignored() -> None:
    """Ignore an earlier policy of the same name."""
    others = [
        good("a", uid="uid-0"),
        node("b", uid="uid-0", rejected="wrong"),
        Reported(
            "c", NodeReport(policies=(reported(name="other"), reported(namespace="other"))), THEN, alive=True
        ),
    ]
    assert status(*others) == status()
    assert status(*others, good("e")) == status(good("e"))


def test_messages_of_any_length_fit() -> None:
    """Cut the text and keep the number of nodes."""
    long = {"ingress": "x" * 600}
    document = status(good("a", effective=long, action=long), good("b", 1, effective={"ingress": "y"}))
    assert document["effective"]["ingress"].endswith("xx (differs on 1 node)")
    assert len(document["effective"]["ingress"]) == len(document["action"]) == 512


LADDER = {
    "Rejected": node("rejects", rejected="wrong"),
    "Failed": node("fails", matched=1, failed=1),
    "AgentUnavailable": good("dead", alive=False),
    "Off": node("off", matched=1, off=1),
    "Updating": good("behind", generation=3),
    "Pending": node("waits", matched=1, pending=1),
    "Programmed": good("good"),
}


@pytest.mark.parametrize("first", range(len(LADDER)))
def test_the_first_reason_in_order_of_precedence_is_shown(first: int) -> None:
    """Combine it with all others."""
    names = list(LADDER)[first:]
    document = status(*(LADDER[name] for name in names))
    assert verdict(document)[1] == names[0]


def test_mode_off_on_all_pods_precedes_every_reason_except_a_rejection() -> None:
    """Include a node without pods that has not reported the generation."""
    off = node("a", matched=1, off=1)
    assert verdict(status(off, node("b", generation=3)))[1] == "Off"
    assert verdict(status(off, node("b", rejected="wrong")))[1] == "Rejected"


def test_a_silent_agent_precedes_overridden_pods() -> None:
    """Expect an unknown state on its node."""
    overridden = node("a", matched=1, overridden=1, overridden_by=over("shop/other"))
    assert verdict(status(overridden, good("b", alive=False)))[1] == "AgentUnavailable"


@pytest.mark.parametrize(
    "reason", ["NoFq", "ForeignQdisc", "NoNamespace", "UnboundedQueue", "ContendedInPod", "NoFilterInPod"]
)
def test_a_limit_that_is_not_as_declared_degrades_the_policy(reason: str) -> None:
    """Stay enforced and ready."""
    reasons = (ReasonCount(reason, 3, "because"),)
    document = status(good("a", degraded=3, reasons=reasons))
    assert verdict(document, "Degraded") == ("True", reason)
    assert (
        message(document, "Degraded") == f"not enforced as declared: {reason} on 3 pods on 1 node (because)"
    )
    assert verdict(document, "Ready") == ("True", "Programmed")
    assert document["pods"]["degraded"] == 3


@pytest.mark.parametrize("reason", ["Bypassed", "NoInterface", "Contended"])
def test_a_partly_enforced_limit_degrades_the_policy_too(reason: str) -> None:
    """Report it in Programmed as well."""
    document = status(node("a", matched=3, failed=3, reasons=(ReasonCount(reason, 3, "because"),)))
    assert verdict(document, "Degraded") == ("True", reason)
    assert verdict(document, "Ready") == ("False", "Failed")


@pytest.mark.parametrize(
    "reason", sorted(reason for reason in Reason if reason.effect in {Effect.DEGRADED, Effect.FAILED})
)
def test_a_pod_without_its_limit_degrades_the_policy(reason: Reason) -> None:
    """Report it beside Programmed, for each reason that does not end by itself."""
    document = status(node("a", matched=1, failed=1, reasons=(ReasonCount(reason, 1, ""),)))
    assert verdict(document, "Degraded") == ("True", reason)


def test_a_pod_that_waits_for_its_address_does_not_degrade_the_policy() -> None:
    """Report it as Pending."""
    document = status(node("a", matched=1, pending=1, reasons=(ReasonCount("NoAddress", 1, ""),)))
    assert verdict(document, "Degraded") == ("False", "AsDeclared")


def test_the_most_frequent_reason_degrades_and_all_are_counted() -> None:
    """Count over all nodes, with the most common message of each."""
    document = status(
        good("a", reasons=(ReasonCount("NoFq", 2, "no fq"), ReasonCount("ForeignQdisc", 3, "tbf"))),
        good("b", reasons=(ReasonCount("NoFq", 2, "no fq"),)),
        good("c", reasons=(ReasonCount("NoFq", 1, "cannot have fq"), ReasonCount("Contended", 0, "no pod"))),
    )
    assert verdict(document, "Degraded") == ("True", "NoFq")
    assert message(document, "Degraded") == (
        "not enforced as declared: NoFq on 5 pods on 3 nodes (no fq); ForeignQdisc on 3 pods on 1 node (tbf)"
    )


def test_an_unknown_reason_degrades_unless_the_schema_rejects_it() -> None:
    """Use only reasons that the API server accepts in a condition."""
    newer = status(good("a", reasons=(ReasonCount("QueueFull", 1, ""),)))
    assert verdict(newer, "Degraded") == ("True", "QueueFull")
    broken = status(good("a", reasons=(ReasonCount("not a word", 1, ""), ReasonCount("", 1, ""))))
    assert verdict(broken, "Degraded") == ("False", "AsDeclared")


def test_many_reasons_and_nodes_are_counted_instead_of_named() -> None:
    """Keep messages readable."""
    reasons = tuple(ReasonCount(f"New{number}", 9 - number, "") for number in range(5))
    assert message(status(good("a", reasons=reasons)), "Degraded").endswith(
        "New2 on 7 pods on 1 node; 2 more reasons"
    )
    dead = [good(f"n{number}", 1, alive=False) for number in range(5)]
    assert message(status(*dead)).endswith("no agent reports from n0, n1, n2 and 2 more")


def test_nodes_that_differ_are_counted_after_the_most_common_action() -> None:
    """Compare by pods, not by nodes, and in each direction separately."""
    common, other = {"ingress": WORDS, "egress": WORDS}, {"ingress": "100Mbit/s, Drop", "egress": WORDS}
    document = status(
        good("a", 5, effective=common, action={"ingress": "Delay", "egress": "Delay"}),
        good("b", 1, effective=other, action={"ingress": "Drop (degraded; no fq)", "egress": "Delay"}),
        good("c", 1, effective=other),
        good("d", 9, effective={"ingress": "50Mbit/s"}, action={"ingress": "Mark"}, generation=3),
    )
    assert document["effective"] == {"ingress": f"{WORDS} (differs on 2 nodes)", "egress": WORDS}
    assert document["action"] == "Delay, Drop (degraded; no fq)"
    reverse = status(good("a", 1, action={"ingress": "Delay"}), good("b", 2, action={"egress": "Drop"}))
    assert reverse["action"] == "Drop, Delay"


def test_a_time_of_transition_changes_only_with_the_status() -> None:
    """Keep it if only reason, message or generation change."""
    before = status(good("a"), now=THEN)["conditions"]
    changed = status(
        node("a", matched=4, programmed=3, overridden=1, generation=5),
        head=dataclasses.replace(HEAD, generation=5),
        previous=before,
    )
    assert {each["lastTransitionTime"] for each in changed["conditions"]} == {THEN}
    assert {each["observedGeneration"] for each in changed["conditions"]} == {5}
    failed = status(node("a", matched=1, failed=1), previous=before)
    times = {each["type"]: each["lastTransitionTime"] for each in failed["conditions"]}
    assert times == {"Accepted": THEN, "Programmed": NOW, "Degraded": THEN, "Ready": NOW}


def test_invalid_previous_conditions_are_ignored() -> None:
    """Expect conditions that a user has written."""
    nonsense = [
        None,
        "Ready",
        {},
        {"type": []},
        {"type": "Ready", "status": "True", "lastTransitionTime": None},
    ]
    assert status(good("a"), previous=nonsense) == status(good("a"))


def test_pods_in_the_network_of_the_node_are_exempt_and_counted() -> None:
    """Stay ready: limits cannot apply to them, and selectors cannot exclude them."""
    document = status(good("a", 2, exempt=1))
    assert verdict(document, "Ready") == ("True", "Programmed")
    assert message(document).endswith("; limits do not apply to 1 pod in the network of the node")
    assert (document["pods"]["exempt"], document["pods"]["summary"]) == (1, "2/2")
    alone = status(node("a", exempt=3))
    assert verdict(alone, "Ready") == ("True", "NoMatchingPods")
    assert message(alone) == "limits do not apply to 3 pods in the network of the node"


def test_tools_wait_while_a_policy_changes_and_fail_if_it_is_invalid() -> None:
    """Follow kstatus: Reconciling and Stalled exist only while they are True."""
    updating, invalid = status(unseen=["b"]), status(head=replace(HEAD, rejected="spec: wrong"))
    assert verdict(updating, "Reconciling") == ("True", "Updating")
    assert verdict(status(node("a", matched=1, pending=1)), "Reconciling") == ("True", "Pending")
    assert verdict(invalid, "Stalled") == ("True", "Invalid")
    for document in (status(good("a")), status(node("a", matched=1, failed=1))):
        types = {each["type"] for each in document["conditions"]}
        assert types == {"Accepted", "Programmed", "Degraded", "Ready"}


def with_problems(name: str, *problems: PodReport) -> Reported:
    """Return a node with pods that are not limited as declared."""
    reasons = tuple(ReasonCount(problem.reason, 1, "") for problem in problems)
    found = node(name, matched=9, failed=1, programmed=8, reasons=reasons)
    return replace(found, report=replace(found.report, pods=problems))


def test_a_status_names_the_first_pods_that_are_not_limited_as_declared() -> None:
    """Name pods without a limit first. Leave out other policies, and reasons that end by themselves."""
    slots = [PodReport("shop", f"b-{each}", "web", "ingress", "NoFreeSlot", "full") for each in range(5)]
    queues = [PodReport("shop", f"a-{each}", "web", "egress", "NoFq", "none") for each in range(5)]
    others = [
        PodReport("shop", "c", "other", "ingress", "NoFreeSlot", ""),
        PodReport("other", "c", "web", "ingress", "NoFreeSlot", ""),
        PodReport("shop", "c", "web", "ingress", "NoAddress", ""),
        PodReport("shop", "c", "web", "sideways", "NoFq", ""),
    ]
    problems = status(with_problems("y", *queues, *others), with_problems("x", *slots))["problems"]
    assert [problem["pod"] for problem in problems] == [
        "b-0",
        "b-1",
        "b-2",
        "b-3",
        "b-4",
        "a-0",
        "a-1",
        "a-2",
    ]
    first = {"pod": "b-0", "node": "x", "direction": "ingress", "reason": "NoFreeSlot", "message": "full"}
    assert problems[0] == first
    assert "problems" not in status(good("a"))


OVERRIDE = st.builds(
    Override,
    st.sampled_from(["", "shop/b", "shop/c"]),
    st.sampled_from(["ingress", "egress", ""]),
    st.integers(0, 2),
)
NODES = st.lists(
    st.builds(
        Reported,
        name=st.sampled_from("abcdefgh"),
        report=st.builds(
            lambda policies: NodeReport(policies=tuple(policies)),
            st.lists(
                st.builds(
                    reported,
                    uid=st.sampled_from(["uid-1", "uid-1", "uid-0"]),
                    generation=st.sampled_from([4, 4, 3]),
                    rejected=st.sampled_from(["", "", "wrong"]),
                    effective=st.dictionaries(st.sampled_from(["ingress", "egress"]), st.text(max_size=600)),
                    action=st.dictionaries(st.sampled_from(["ingress", "egress"]), st.text(max_size=600)),
                    overridden_by=st.lists(OVERRIDE, max_size=4).map(tuple),
                    reasons=st.lists(
                        st.builds(
                            ReasonCount,
                            st.sampled_from(
                                ["NoFq", "Bypassed", "HostNetwork", "NoAddress", "New", "n/a", ""]
                            ),
                            st.integers(0, 3),
                            st.text(max_size=3),
                        ),
                        max_size=5,
                    ).map(tuple),
                    **{name: st.integers(0, 2) for name in STATES},
                ),
                max_size=2,
            ),
        ),
        alive=st.booleans(),
        written=st.sampled_from(["", THEN, NOW]),
    ),
    max_size=6,
    unique_by=lambda state: state.name,
)


@given(NODES, st.data())
def test_the_same_reports_yield_the_same_status(nodes: list[Reported], data: st.DataObject) -> None:
    """Change the order of the nodes and the time, and pass the status through the API server."""
    first = status(*nodes)
    again = status(
        *data.draw(st.permutations(nodes)), previous=json.loads(json.dumps(first))["conditions"], now=LATER
    )
    assert again == first


@given(NODES)
def test_ready_implies_accepted_and_programmed(nodes: list[Reported]) -> None:
    document = status(*nodes)
    holds = {each["type"]: each["status"] for each in document["conditions"]}
    overridden = verdict(document, "Programmed")[1] == "Overridden"
    programmed = holds["Programmed"] == "True" or overridden
    assert (holds["Ready"] == "True") == (holds["Accepted"] == "True" and programmed)
    progress = [name for name in holds if name in {"Reconciling", "Stalled"}]
    assert [*holds] == ["Accepted", "Programmed", "Degraded", *progress, "Ready"]
    assert all(holds[name] == "True" for name in progress)
    assert not progress or holds["Ready"] != "True"


@given(NODES)
def test_ready_means_that_every_pod_is_programmed_or_overridden(nodes: list[Reported]) -> None:
    """Use only reports of live agents about this generation."""
    document = status(*nodes)
    if verdict(document, "Ready")[0] != "True":
        return
    for state in nodes:
        given = next((each for each in state.report.policies if each.uid == "uid-1"), None)
        if given and (state.alive or given.pods.matched):
            assert state.alive
            pods = given.pods
            assert (given.generation, given.rejected, pods.failed, pods.off, pods.pending) == (4, "", 0, 0, 0)
            assert pods.programmed + pods.overridden >= pods.matched


@given(NODES)
def test_a_status_fits_the_schema(nodes: list[Reported]) -> None:
    """Avoid that the API server rejects the status or drops fields, and that each run writes it again."""
    assert misfits(STATUS_SCHEMA["TokenBucketPolicy"], status(*nodes)) == []
