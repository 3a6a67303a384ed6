"""The chart on a real API server: accepted objects, rights, and warnings."""

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
    """A pod with the account of an agent, on a node."""

    kubectl: Kubectl
    name: str
    node: str

    def refused(
        self, path: str, body: Mapping[str, Any], kind: str = "merge-patch+json", token: str = ""
    ) -> str:
        """Return why the API server rejects a patch; empty if it accepts it."""
        arguments = (path, kind, json.dumps(body), token)
        return self.kubectl.exec(self.name, "python3", "-c", _PATCH, *arguments).strip()

    def report_refused(self, node: str, token: str = "") -> str:
        """Return why the API server rejects the report of a node, written as an agent does."""
        head = {
            "apiVersion": "tokenbucket.dev/v1alpha1",
            "kind": "TokenBucketNode",
            "metadata": {"name": node},
        }
        return self.refused(f"{REPORT}/{node}", {**head, "status": {"limits": 1}}, "apply-patch+yaml", token)


def rendered(release: Release, namespace: str) -> list[Document]:
    """Return every object that the chart can render."""
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
    """Create one on each node, under a release that may remove the taint and set readiness gates."""
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


def test_the_api_server_accepts_all_objects(release: Release) -> None:
    """Turn everything on, except objects that need other CRDs or an existing account."""
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


def test_the_expressions_of_admission_policies_pass_the_type_check(agents: list[Agent]) -> None:
    """Check them against the kinds that they match."""
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
def test_an_account_has_the_declared_rights_and_no_other(release: Release, account: str) -> None:
    """Ask the API server in any namespace, and in that of the release."""
    assert rights_in(release.admin, "default", account) == EVERYWHERE[account]
    both = EVERYWHERE[account] | IN_THE_RELEASES_NAMESPACE[account]
    assert rights_in(release.admin, NAMESPACE, account) == both


def rights_in(kubectl: Kubectl, namespace: str, account: str) -> Rights:
    """Return the rights, without those that every account has."""
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
    """Print the nodes, and leave no object."""
    output = release._helm("test", NAME, "--timeout=200s")
    assert "Phase:          Succeeded" in output
    assert release.kubectl.run("get", "pod,serviceaccount", f"{NAME}-check", "--ignore-not-found") == ""


def test_an_agent_writes_only_the_report_of_its_node(agents: list[Agent]) -> None:
    """Identify the node by the token."""
    for agent in agents:
        for node in (each.node for each in agents):
            refused = agent.report_refused(node)
            assert bool(refused) == (node != agent.node), refused
            assert not refused or agent.node in refused


def test_a_token_without_a_pod_writes_no_report(agent: Agent) -> None:
    """Create such a token manually."""
    token = agent.kubectl.run("create", "token", ACCOUNT).strip()
    assert "the token names no node" in agent.report_refused(agent.node, token)


def test_an_agent_may_only_remove_its_taint_from_its_node(agents: list[Agent]) -> None:
    """Change nothing else of the node."""
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


def test_an_agent_may_only_set_the_readiness_condition_of_pods_on_its_node(agents: list[Agent]) -> None:
    """Change nothing else of the pods."""
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
def test_a_likely_mistake_causes_a_warning(
    agents: list[Agent], spec: dict[str, Any], warning: str | None
) -> None:
    """Name the field and the fix, and accept the policy. Correct policies cause no warning."""
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
