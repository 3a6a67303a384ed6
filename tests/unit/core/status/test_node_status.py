"""The report of an agent about each policy."""

from __future__ import annotations

from dataclasses import asdict, replace
from ipaddress import IPv4Address

import pytest

from tests.unit.core.api.test_node_report import STATUS_SCHEMA, misfits
from tokenbucket.core.api.node_report import NodeReport, Override, PolicyReport, to_document
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Policy, Rate
from tokenbucket.core.api.selector import Operator, Requirement, Selector
from tokenbucket.core.planning.attachment import End, Interface
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import desired
from tokenbucket.core.planning.kept import NodeSettings
from tokenbucket.core.planning.pod_limits import PodInterfaces
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import (
    DesiredInput,
    NodeState,
    Outcome,
    agent_condition,
    missing_limits,
    pods_not_programmed,
    policy_reports,
)

LIMIT = Limit(Rate(10**7), exceed_action=ExceedAction.DROP)
IN, OUT = Direction
LOCATED = PodInterfaces({End.HOST: frozenset({Interface(7)})})
PODS = tuple(
    Pod(PodId("shop", f"{app}-{number}"), {"app": app}, frozenset({IPv4Address(f"10.0.{block}.{number}")}))
    for block, app in enumerate(("web", "db"))
    for number in range(2)
)


def policy(name: str, *directions: Direction, app: str = "", **fields: object) -> Policy:
    """Return a policy that selects the pods of an app, or all pods."""
    selector = Selector(frozenset({Requirement("app", Operator.IN, frozenset({app}))} if app else ()))
    return Policy("shop", name, selector, dict.fromkeys(directions, LIMIT), **fields)


def tallied(*policies: Policy, enforcement: Mode = Mode.ENFORCE, located: PodInterfaces | None = None):
    """Return the reports by name, on a node where every pod has its veth."""
    found = {
        pod.id: located or PodInterfaces({End.HOST: frozenset({Interface(7 + n)})})
        for n, pod in enumerate(PODS)
    }
    target = desired(
        policies, PODS, lambda search: found[search.pod], Capabilities(), NodeSettings(enforcement)
    )
    inputs = DesiredInput(policies, PODS, enforcement)
    state = NodeState(inputs, Outcome(deviations=target.deviations, active=target.active))
    return {report.name: report for report in policy_reports(state)}


def counts(report: PolicyReport) -> dict[str, int]:
    """Return the counts that are not 0."""
    return {name: number for name, number in asdict(report.pods).items() if number}


def test_every_selected_pod_is_counted() -> None:
    """Count no other pod."""
    reports = tallied(policy("web", IN, OUT, app="web"), policy("nothing", IN, app="none"))
    assert reports.keys() == {"web"}
    assert counts(reports["web"]) == {"matched": 2, "programmed": 2}
    assert reports["web"].action == {"ingress": "Drop", "egress": "Drop"}


def test_an_overridden_policy_names_every_winner_with_its_pods() -> None:
    """Compare each direction. A policy that keeps one direction is programmed."""
    reports = tallied(
        policy("all", IN, OUT),
        policy("web", IN, app="web", priority=2),
        policy("db", IN, OUT, app="db", priority=1),
    )
    assert counts(reports["all"]) == {"matched": 4, "programmed": 2, "overridden": 2}
    assert reports["all"].overridden_by == (
        Override("shop/db", "egress", 2),
        Override("shop/db", "ingress", 2),
        Override("shop/web", "ingress", 2),
    )
    assert reports["web"].overridden_by == reports["db"].overridden_by == ()


def test_a_report_with_the_longest_names_fits_the_schema() -> None:
    """Avoid that the API server rejects the whole report."""
    namespace, name = "n" * 63, "x" * 253
    pod = Pod(PodId(namespace, name), {}, frozenset())
    policies = [Policy(namespace, name[:-1] + end, Selector(frozenset()), {IN: LIMIT}) for end in "ab"]
    target = desired(policies, [pod], lambda *_: PodInterfaces(), Capabilities())
    outcome = Outcome(deviations=target.deviations, active=target.active)
    state = NodeState(DesiredInput(policies, (pod,)), outcome)
    report = NodeReport(policies=policy_reports(state), pods=tuple(pods_not_programmed(state)))
    assert [each.policy for each in report.pods] == [policies[0].name]
    assert [len(each.overridden_by) for each in report.policies] == [0, 1]
    assert misfits(STATUS_SCHEMA["TokenBucketNode"], to_document(report)) == []


@pytest.mark.parametrize(
    ("mode", "enforcement"), [(Mode.OBSERVE, Mode.ENFORCE), (Mode.ENFORCE, Mode.OBSERVE)]
)
def test_pods_that_are_only_observed_are_counted_as_such(mode: Mode, enforcement: Mode) -> None:
    """Apply the mode of the policy or of the node, and show no action of a limit."""
    report = tallied(policy("web", IN, app="web", mode=mode), enforcement=enforcement)["web"]
    assert counts(report) == {"matched": 2, "programmed": 2, "observed": 2}
    assert report.action == {"ingress": "Observe"}


@pytest.mark.parametrize(
    ("mode", "enforcement"), [(Mode.OFF, Mode.ENFORCE), (Mode.ENFORCE, Mode.OFF), (Mode.OBSERVE, Mode.OFF)]
)
def test_pods_without_a_limit_because_of_mode_off_are_off(mode: Mode, enforcement: Mode) -> None:
    """Report nothing about limits that would be enforced."""
    report = tallied(policy("web", IN, mode=mode), enforcement=enforcement)["web"]
    assert counts(report) == {"matched": 4, "off": 4}
    assert (report.effective, report.action) == ({}, {})


def test_a_pod_without_an_interface_is_failed_with_a_reason() -> None:
    """List the reason once for all pods."""
    report = tallied(policy("web", IN), located=PodInterfaces(reason=Reason.NO_INTERFACE, message="none"))[
        "web"
    ]
    assert counts(report) == {"matched": 4, "failed": 4}
    assert [(each.reason, each.pods) for each in report.reasons] == [("NoInterface", 4)]


@pytest.mark.parametrize(
    ("silence", "pods", "status", "reason"),
    [
        ("", {"agent-a": True}, "True", "Ready"),
        ("", {"agent-a": False}, "True", "Ready"),
        ("is silent", {"agent-a": False, "agent-b": True}, "False", "Silent"),
        ("is silent", {"agent-a": False}, "False", "NotReady"),
        ("is silent", {}, "False", "NoPod"),
    ],
)
def test_an_agent_is_ready_if_its_report_is_recent(
    silence: str, pods: dict[str, bool], status: str, reason: str
) -> None:
    """Keep the condition while nothing changes."""
    first = agent_condition(
        silence, pods, [None, {"type": "Other", "status": status}], "2026-01-01T00:00:00Z"
    )
    assert (first["status"], first["reason"]) == (status, reason)
    assert agent_condition(silence, pods, [first], "2026-01-02T00:00:00Z") == first
    changed = agent_condition("" if silence else "is silent", pods, [first], "2026-01-02T00:00:00Z")
    expected = first if changed["status"] == status else {"lastTransitionTime": "2026-01-02T00:00:00Z"}
    assert changed["lastTransitionTime"] == expected["lastTransitionTime"]


def test_pods_in_the_network_of_the_node_are_exempt() -> None:
    """Count them apart from other pods, name no reason, and open their readiness gates."""
    host = replace(PODS[0], host_network=True)
    pods = (host, *PODS[1:])
    web = policy("web", IN, app="web")
    target = desired((web,), pods, lambda _: LOCATED, Capabilities())
    state = NodeState(DesiredInput((web,), pods), Outcome(deviations=target.deviations, active=target.active))
    assert [deviation.reason for deviation in state.outcome.deviations] == [Reason.HOST_NETWORK]
    (report,) = policy_reports(state)
    assert counts(report) == {"matched": 1, "programmed": 1, "exempt": 1}
    assert report.reasons == ()
    assert not list(pods_not_programmed(state))
    assert missing_limits(state, Winners((web,)), host) == ""
