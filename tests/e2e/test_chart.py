"""The chart's promises, on a real API server: what it takes, whom it lets do what, and what it warns of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml

from cluster.command import run
from cluster.errors import ClusterError
from cluster.kubectl import Document, Kubectl
from cluster.workloads import pod
from tests.chart.chart import EVERYTHING, FOLDER
from tests.chart.rights import EVERYWHERE, IN_THE_RELEASES_NAMESPACE, Rights, rights
from tests.e2e.release import NAME, NAMESPACE, Release, policy, until

pytestmark = pytest.mark.kubernetes
OTHER = "chart-test"
"""A second release, of which only rules are installed: no agent."""
ACCOUNT = f"{OTHER}-tokenbucket-agent"
RULES = {
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
TAINT = {"key": "tokenbucket.dev/agent-not-ready", "effect": "PreferNoSchedule"}
FOREIGN_TAINT = {"key": "example.com/mine", "effect": "PreferNoSchedule"}
GATE = "tokenbucket.dev/RateLimited"
REPORT = "/apis/tokenbucket.dev/v1alpha1/tokenbucketnodes"

_PATCH = """
import json, os, ssl, sys, urllib.error, urllib.request
path, kind, body, token = sys.argv[1:]
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
host = os.environ["KUBERNETES_SERVICE_HOST"]
request = urllib.request.Request(
    f"https://{host}{path}?dryRun=All&fieldManager=test" + ("&force=true" if "apply" in kind else ""),
    data=body.encode(),
    method="PATCH",
    headers={
        "Content-Type": f"application/{kind}",
        "Authorization": "Bearer " + (token or open(folder + "token").read()),
    },
)
try:
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=folder + "ca.crt"), timeout=30)
except urllib.error.HTTPError as error:
    print(json.loads(error.read())["message"])
"""
"""Prints why a patch is refused; nothing when it is not. A dry run: nothing changes."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A pod with an agent's account, on a node."""

    kubectl: Kubectl
    name: str
    node: str

    def refused(
        self, path: str, body: Mapping[str, Any], kind: str = "merge-patch+json", token: str = ""
    ) -> str:
        """Why the API server refuses a patch; nothing when it does not."""
        arguments = (path, kind, json.dumps(body), token)
        return self.kubectl.exec(self.name, "python3", "-c", _PATCH, *arguments).strip()

    def report_refused(self, node: str, token: str = "") -> str:
        """The same, of the TokenBucketNode of a node, written as an agent does."""
        head = {
            "apiVersion": "tokenbucket.dev/v1alpha1",
            "kind": "TokenBucketNode",
            "metadata": {"name": node},
        }
        return self.refused(f"{REPORT}/{node}", {**head, "status": {"limits": 1}}, "apply-patch+yaml", token)


def rendered(release: Release, namespace: str) -> list[Document]:
    """All that the chart can make."""
    helm = release.admin.program.replace("kubectl", "helm")
    argv = [
        helm,
        "template",
        OTHER,
        FOLDER,
        f"--namespace={namespace}",
        "--dry-run=server",  # renders the hooks
        f"--kubeconfig={release.admin.kubeconfig}",
        "--kube-version=1.34.0",
        "--values=-",
    ]
    return list(
        filter(None, yaml.safe_load_all(run(argv, part="helm template", stdin=json.dumps(EVERYTHING))))
    )


@pytest.fixture(scope="module")
def agents(release: Release, nodes: list[str]) -> Iterator[list[Agent]]:
    """One on each node, under the rules of a release that may remove the taint and open gates."""
    with release.admin.fresh_namespace(OTHER) as here:
        rules = [each for each in rendered(release, OTHER) if each["kind"] in RULES]
        here.apply(*rules)
        try:
            spec = {"serviceAccountName": ACCOUNT, "automountServiceAccountToken": True}
            here.apply(*(pod(f"agent-{node}", node, **spec) for node in nodes))
            here.wait("condition=Ready", "pod", "--all")
            found = [Agent(here, f"agent-{node}", node) for node in nodes]
            until(lambda: bool(found[0].report_refused("elsewhere")))  # the rules take a moment
            yield found
        finally:
            here.delete(*rules)


@pytest.fixture
def agent(agents: list[Agent]) -> Agent:
    return agents[0]


def test_the_api_server_takes_everything(release: Release) -> None:
    """With all that can be switched on, but what is not the API server's own: a pod needs its account to be
    there, so those that make pods do, and what is for the Prometheus operator or OpenShift needs its CRDs.
    """
    not_here = {"Pod", "PodMonitor", "ServiceMonitor", "PrometheusRule", "SecurityContextConstraints"}
    documents = [each for each in rendered(release, NAMESPACE) if each["kind"] not in not_here]
    for each in documents:
        if each["kind"] == "CustomResourceDefinition":
            each["metadata"]["labels"]["app.kubernetes.io/instance"] = NAME
    replace(release.admin, namespace="").run(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--filename=-",
        stdin=yaml.safe_dump_all(documents),
    )


def test_the_rules_are_typed_right(agents: list[Agent]) -> None:
    """The API server checks their expressions against the kinds that they are about."""
    here = agents[0].kubectl
    ours = [
        each
        for each in here.items("validatingadmissionpolicies")
        if each["metadata"]["name"].startswith(OTHER)
    ]
    assert len(ours) == 7
    for each in ours:
        name = each["metadata"]["name"]
        until(
            lambda name=name: "typeChecking" in here.get("validatingadmissionpolicy", name).get("status", {})
        )
        status = here.get("validatingadmissionpolicy", name)["status"]
        assert status["typeChecking"] == {}, name


@pytest.mark.parametrize("account", ["tokenbucket-agent", "tokenbucket-controller"])
def test_an_account_may_do_what_the_chart_says_and_nothing_else(release: Release, account: str) -> None:
    """All that the API server would let it do: in any namespace, and in the release's own."""
    assert rights_in(release.admin, "default", account) == EVERYWHERE[account]
    both = EVERYWHERE[account] | IN_THE_RELEASES_NAMESPACE[account]
    assert rights_in(release.admin, NAMESPACE, account) == both


def rights_in(kubectl: Kubectl, namespace: str, account: str) -> Rights:
    """But the questions about itself, which everybody may ask."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    review = kubectl.run(
        "create",
        "--validate=false",
        f"--as=system:serviceaccount:{NAMESPACE}:{account}",
        "--output=json",
        "--filename=-",
        stdin=json.dumps(review),
    )
    found = rights({"rules": json.loads(review)["status"]["resourceRules"]})
    return {what: verbs for what, verbs in found.items() if not what[0].startswith("auth")}


def test_helm_test_passes(release: Release) -> None:
    """It names the nodes, and leaves nothing."""
    output = release._helm("test", NAME, "--timeout=200s")
    assert "Phase:          Succeeded" in output
    assert release.kubectl.run("get", "pod,serviceaccount", f"{NAME}-check", "--ignore-not-found") == ""


def test_an_agent_writes_its_own_nodes_report_and_no_others(agents: list[Agent]) -> None:
    """Its token says which node it is on."""
    for agent in agents:
        for node in (each.node for each in agents):
            refused = agent.report_refused(node)
            assert bool(refused) == (node != agent.node), refused
            assert not refused or agent.node in refused


def test_a_token_of_no_pod_writes_no_report(agent: Agent) -> None:
    """Such as one that somebody has made by hand."""
    token = agent.kubectl.run("create", "token", ACCOUNT).strip()
    assert "the token names no node" in agent.report_refused(agent.node, token)


def test_an_agent_may_remove_the_one_taint_of_its_own_node(agents: list[Agent]) -> None:
    """And change nothing else there."""
    agent, *others = agents
    path = f"/api/v1/nodes/{agent.node}"
    before = agent.kubectl.get("node", agent.node)["spec"].get("taints", [])
    taint = [f"{each['key']}:{each['effect']}" for each in (TAINT, FOREIGN_TAINT)]
    agent.kubectl.run("taint", "node", agent.node, *taint)
    try:
        assert agent.refused(path, {"spec": {"taints": [*before, FOREIGN_TAINT]}}) == ""
        for change in (
            {"spec": {"taints": [*before, TAINT]}},
            {"spec": {"taints": [*before, TAINT, FOREIGN_TAINT, {"key": "a", "effect": "NoSchedule"}]}},
            {"spec": {"taints": [*before, FOREIGN_TAINT], "unschedulable": True}},
            {"metadata": {"labels": {"a": "b"}}},
            {"metadata": {"annotations": {"a": "b"}}},
        ):
            assert "an agent may" in agent.refused(path, change), change
        for other in others:
            assert "its own node" in other.refused(path, {"spec": {"taints": [*before, FOREIGN_TAINT]}})
    finally:
        agent.kubectl.run("taint", "node", agent.node, *(f"{each}-" for each in taint))


def test_an_agent_may_set_the_one_condition_of_its_own_nodes_pods(agents: list[Agent]) -> None:
    """And change nothing else of them."""
    agent, *others = agents
    kind = "strategic-merge-patch+json"
    path = f"/api/v1/namespaces/{OTHER}/pods/{agent.name}/status"
    gate = {"status": {"conditions": [{"type": GATE, "status": "True"}]}}
    assert agent.refused(path, gate, kind) == ""
    for change in (
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"reason": "Evicted"}},
        {"status": {"phase": "Failed"}},
        {"metadata": {"labels": {"app": "other"}}},
        {"metadata": {"annotations": {"a": "b"}}},
    ):
        assert "an agent may" in agent.refused(path, change, kind), change
    for other in others:
        assert "its own node" in other.refused(path, gate, kind)


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        ({"ingress": {"rate": {"bits": "10M"}}}, "spec.podSelector: {} selects all pods"),
        ({"ingress": {"rate": {"bits": "999k"}}}, "spec.ingress.rate.bits: is below 1M"),
        ({"egress": {"rate": {"bits": 100000}}}, "spec.egress.rate.bits: is below 1M"),
        (
            {"egress": {"rate": {"bits": "80M"}, "burst": {"bytes": "999k"}, "exceedAction": "Drop"}},
            "spec.egress.burst.bytes: is less than 100 ms of the rate",
        ),
        (
            {"ingress": {"rate": {"bits": "10M"}, "perPeer": {"rate": {"bits": "100M"}}}},
            "spec.ingress.perPeer.rate.bits: is above rate.bits",
        ),
        ({"ingress": {"rate": {"bits": "10M"}, "perPeer": {"rate": {"bits": "10M"}}}}, None),
        ({"ingress": {"rate": {"bits": "1M"}}, "egress": {"rate": {"packets": 100}}}, None),
        ({"ingress": {"rate": {"bits": "80M"}, "burst": {"bytes": "1M"}, "exceedAction": "Drop"}}, None),
        ({"ingress": {"rate": {"bits": "80M"}, "burst": {"bytes": "64Ki"}}}, None),
        ({"ingress": {"rate": {"bits": "80M"}, "exceedAction": "Drop"}}, None),
    ],
    ids=json.dumps,
)
def test_a_likely_mistake_is_warned_of_and_accepted(
    agents: list[Agent], spec: dict[str, Any], warning: str | None
) -> None:
    """With the field and what to do; and what is right is not."""
    here = agents[0].kubectl
    app = None if warning and "podSelector" in warning else "web"
    words = ("--dry-run=server", "--filename=-")
    document = json.dumps(policy("warned", app, **spec))
    here.run("create", *words, stdin=document)
    if warning is None:
        here.run("create", "--warnings-as-errors", *words, stdin=document)
        return
    with pytest.raises(ClusterError) as caught:
        here.run("create", "--warnings-as-errors", *words, stdin=document)
    assert warning in caught.value.output
    assert caught.value.output.count("Warning:") == 1
