"""The rights of each service account, of a stolen agent token, and of the user of a namespace."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.kubectl import Document, Kubectl
from cluster.workloads import pod, server
from tests.chart.rights import EVERYWHERE, IN_KUBE_SYSTEM, IN_THE_RELEASES_NAMESPACE
from tests.e2e.release import NAME, NAMESPACE, Release, condition, policy, until, wait_ready
from tests.e2e.traffic import udp

ACCOUNTS = ("agent", "controller", "cleanup")
LIMIT = {"rate": {"bits": "10M"}, "burst": {"bytes": "256Ki"}, "exceedAction": "Drop"}
RATE = 10_000_000
ALLOWED = "tokenbucket.dev/allow-protected"
USER = "alice"
ROLE_KINDS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}

OURS, RBAC = "tokenbucket.dev", "rbac.authorization.k8s.io"
WRITES = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True, slots=True)
class Deed:
    """A request to the API server; ``resource`` with its subresource."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.group}/{self.resource} {self.name}{where}"

    def review(self) -> Document:
        """Return the SelfSubjectAccessReview."""
        resource, _, subresource = self.resource.partition("/")
        attributes = {
            "verb": self.verb,
            "group": self.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": self.namespace,
            "name": self.name,
        }
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }


def deeds(resource: str, verbs: tuple[str, ...], group: str = "") -> list[Deed]:
    """Return requests in the namespace of the release. Cluster-wide rights apply there too."""
    return [Deed(verb, resource, group, NAMESPACE) for verb in verbs]


FOR_NOBODY = [
    *deeds("secrets", ("get", "list", "watch", *WRITES)),
    *deeds("pods", WRITES),
    *(deed for sub in ("exec", "attach", "portforward") for deed in deeds(f"pods/{sub}", ("create", "get"))),
    *deeds("pods/log", ("get",)),
    *deeds("pods/status", ("update", "patch")),
    *deeds("pods/ephemeralcontainers", ("update", "patch")),
    *deeds("pods/eviction", ("create",)),
    *deeds("nodes", WRITES),
    *deeds("nodes/status", ("update", "patch")),
    *deeds("nodes/proxy", ("get", "create")),
    *deeds("configmaps", ("create", "update", "delete")),
    *deeds("namespaces", ("get", "list", *WRITES)),
    *deeds("services", WRITES),
    *deeds("serviceaccounts", WRITES),
    *deeds("serviceaccounts/token", ("create",)),
    *deeds("users", ("impersonate",)),
    *deeds("serviceaccounts", ("impersonate",)),
    *deeds("daemonsets", WRITES, "apps"),
    *deeds("deployments", WRITES, "apps"),
    *deeds("tokenbucketpolicies", WRITES, OURS),
    *deeds("tokenbucketnodes", ("update", "deletecollection"), OURS),
    *deeds("clusterroles", (*WRITES, "escalate", "bind"), RBAC),
    *deeds("roles", (*WRITES, "escalate", "bind"), RBAC),
    *deeds("clusterrolebindings", WRITES, RBAC),
    *deeds("rolebindings", WRITES, RBAC),
    *deeds("customresourcedefinitions", WRITES, "apiextensions.k8s.io"),
    *deeds("validatingadmissionpolicies", WRITES, "admissionregistration.k8s.io"),
    *deeds("mutatingwebhookconfigurations", WRITES, "admissionregistration.k8s.io"),
    *deeds("certificatesigningrequests", ("create", "update"), "certificates.k8s.io"),
    *deeds("*", ("*",), "*"),
]
READ_OTHERS = [
    Deed(verb, "configmaps", "", namespace, name)
    for verb in ("get", "list", "watch")
    for namespace, name in (
        ("kube-system", ""),
        ("kube-system", NAME),
        (NAMESPACE, ""),
        (NAMESPACE, "another"),
    )
]
REFUSED = {
    "agent": [
        *FOR_NOBODY,
        *READ_OTHERS,
        *deeds("configmaps", ("patch",)),
        *deeds("tokenbucketnodes", ("delete",), OURS),
        *deeds("tokenbucketpolicies/status", ("update", "patch"), OURS),
        *deeds("events", ("create", "list")),
    ],
    "controller": [
        *FOR_NOBODY,
        *READ_OTHERS,
        *(Deed(verb, "configmaps", "", NAMESPACE, NAME) for verb in ("get", "list", "watch", "patch")),
        *deeds("tokenbucketnodes", ("create",), OURS),
        *deeds("tokenbucketpolicies/status", ("update",), OURS),
        *deeds("events", ("list", "delete")),
        *(Deed(verb, "pods", "", "kube-system") for verb in ("get", "watch")),
    ],
    "cleanup": [
        *FOR_NOBODY,
        *READ_OTHERS,
        Deed("patch", "configmaps", "", "kube-system", NAME),
        Deed("patch", "configmaps", "", NAMESPACE, "another"),
        *(Deed(verb, "configmaps", "", NAMESPACE, NAME) for verb in ("get", "list", "watch")),
        *deeds("tokenbucketnodes", ("get", "create", "patch", "watch"), OURS),
        *deeds("tokenbucketpolicies", ("get", "list", "watch"), OURS),
        *deeds("pods", ("get", "list", "watch")),
        *deeds("events", ("create", "list")),
    ],
}


def needed(account: str) -> list[Deed]:
    """Return the requests that an account needs."""
    places = {"": EVERYWHERE, NAMESPACE: IN_THE_RELEASES_NAMESPACE, "kube-system": IN_KUBE_SYSTEM}
    return [
        Deed(verb, what.resource, what.group, namespace, what.name)
        for namespace, rights in places.items()
        for what, verbs in rights.get(f"{NAME}-{account}", {}).items()
        for verb in sorted(verbs)
    ]


@pytest.fixture(scope="module")
def accounts(release: Release) -> Iterator[Kubectl]:
    """Provide all accounts, with the one that exists only during an uninstallation."""
    hooks = yaml.safe_load_all(release._helm("get", "hooks", NAME))
    roles = [
        each
        for each in hooks
        if each and each["kind"] in ROLE_KINDS and each["metadata"]["name"] == f"{NAME}-cleanup"
    ]
    assert {each["kind"] for each in roles} == ROLE_KINDS
    release.kubectl.apply(*roles)
    yield release.kubectl
    release.kubectl.delete(*roles)


def granted(kubectl: Kubectl, account: str, asked: list[Deed]) -> list[str]:
    """Return the requests that the API server permits, as ``kubectl auth can-i`` does."""
    reviews = {"apiVersion": "v1", "kind": "List", "items": [deed.review() for deed in asked]}
    user = f"system:serviceaccount:{NAMESPACE}:{NAME}-{account}"
    words = ("create", "--validate=false", "--output=json", "--filename=-", f"--as={user}")
    answers = documents_in(kubectl.run(*words, stdin=json.dumps(reviews), timeout_s=120))
    return [str(deed) for deed, answer in zip(asked, answers, strict=True) if answer["status"]["allowed"]]


def documents_in(text: str) -> Iterator[Document]:
    """Parse concatenated JSON documents, as ``kubectl create`` prints them."""
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_has_the_rights_that_it_needs(accounts: Kubectl, account: str) -> None:
    """Reject no request of its work."""
    asked = needed(account)
    assert granted(accounts, account, asked) == [str(deed) for deed in asked]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_has_no_right_that_it_does_not_need(accounts: Kubectl, account: str) -> None:
    """Grant no secrets, no further writes, no escalation, and only reads outside of its namespace."""
    assert granted(accounts, account, REFUSED[account]) == []


@contextlib.contextmanager
def with_token(kubectl: Kubectl, token: str, folder: Path) -> Iterator[Kubectl]:
    """Return commands with this token."""
    config = json.loads(kubectl.run("config", "view", "--raw", "--minify", "--output=json"))
    config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    yield Kubectl(file, kubectl.program, kubectl.namespace)
    file.unlink()


def test_a_stolen_agent_token_writes_only_the_report_of_its_node(
    release: Release, nodes: list[str], tmp_path: Path
) -> None:
    """Reject the report of a node that does not exist too."""
    node, *others = nodes
    pod_name = release.agent(node)
    words = ("--bound-object-kind=Pod", f"--bound-object-name={pod_name}")
    token = release.kubectl.run("create", "token", f"{NAME}-agent", *words).strip()
    with with_token(release.kubectl, token, tmp_path) as thief:
        write_report(thief, node)
        for other in (*others, "elsewhere"):
            with pytest.raises(ClusterError) as caught:
                write_report(thief, other)
            assert f"the TokenBucketNode of its node, {node}" in caught.value.output
        with pytest.raises(ClusterError) as caught:
            thief.run("get", "secrets")
        assert "Forbidden" in caught.value.output


def write_report(kubectl: Kubectl, node: str) -> None:
    """Write a report as a dry run."""
    report = {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketNode",
        "metadata": {"name": node},
        "status": {"limits": 1},
    }
    words = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=false", "--filename=-")
    kubectl.run("apply", *words, stdin=json.dumps(report))


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Two namespaces with a pod each. A user may write the policies of the first one."""

    mine: Kubectl
    theirs: Kubectl


@pytest.fixture
def neighbors(release: Release, nodes: list[str]) -> Iterator[Neighbors]:
    rights = {"apiGroups": [OURS], "resources": ["tokenbucketpolicies"], "verbs": ["*"]}
    meta = {"name": "policies"}
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [rights]}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "policies"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": USER}],
    }
    with (
        release.admin.fresh_namespace("rights-mine") as mine,
        release.admin.fresh_namespace("rights-theirs") as theirs,
    ):
        mine.apply(role, binding, server("web", nodes[0]), pod("client", nodes[-1], {"app": "client"}))
        theirs.apply(server("web", nodes[0]), pod("client", nodes[-1], {"app": "client"}))
        for each in (mine, theirs):
            each.wait("condition=Ready", "pod", "--all", timeout_s=120)
        yield Neighbors(mine, theirs)


def test_a_user_of_a_namespace_limits_only_its_pods(neighbors: Neighbors) -> None:
    """Use two pods with the same name and labels on one node. Rejections name the namespace."""
    mine, theirs = neighbors.mine, neighbors.theirs
    document = json.dumps(policy("web", "web", ingress=LIMIT, priority=1000))
    mine.run("apply", f"--as={USER}", "--filename=-", stdin=document)
    wait_ready(mine, "web", 1)
    assert udp(mine, "client", "web", 3 * RATE).bits_per_s < 1.05 * RATE
    until(lambda: udp(theirs, "client", "web", 3 * RATE).bits_per_s > 2 * RATE)
    for words in (("create", "--filename=-"), ("delete", "tbp", "--all"), ("get", "tbp"), ("get", "tbn")):
        with pytest.raises(ClusterError) as caught:
            theirs.run(*words, f"--as={USER}", stdin=document if "create" in words else None)
        assert "is forbidden" in caught.value.output.lower(), words
    mine.run("delete", "tbp", "web", f"--as={USER}")


LIVE = f"{NAME}-live"


def signed_in(
    here: Kubectl, name: str, token_folder: Path, *bindings: Document
) -> contextlib.AbstractContextManager[Kubectl]:
    """Create a service account with these bindings, and return commands with its token."""
    here.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    for each in bindings:
        here.run("apply", "--filename=-", stdin=json.dumps(each))
    token = here.run("create", "token", name).strip()
    token_folder.mkdir()
    return with_token(here, token, token_folder)


def binding_of(here: Kubectl, name: str, kind: str, role: str) -> Document:
    """Return a binding of an account of this namespace to a role."""
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{name}-{role}"},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": here.namespace}],
    }


def plugin(user: Kubectl, *words: str) -> tuple[int, str, str]:
    """Run the plugin with the rights of a user. Return the exit status, the output and the errors."""
    argv = [sys.executable, "-m", "tokenbucket.plugin", "--kubeconfig", str(user.kubeconfig), *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "operator")}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr


def test_users_see_live_figures_only_of_pods_that_they_may_read(
    release: Release, neighbors: Neighbors, nodes: list[str], tmp_path: Path
) -> None:
    """Show one namespace to its viewer, and open no other port, path or name of agents."""
    mine, theirs, here = neighbors.mine, neighbors.theirs, release.kubectl
    for each in (mine, theirs):
        each.apply(policy("web", "web", ingress=LIMIT))
        wait_ready(each, "web", 1)
    uid = mine.get("pod", "web")["metadata"]["uid"]
    granted_live = binding_of(mine, "viewer", "Role", f"{LIVE}-viewer")
    here.apply(granted_live)
    try:
        viewer = signed_in(
            mine, "viewer", tmp_path / "viewer", binding_of(mine, "viewer", "ClusterRole", "view")
        )
        with viewer as user:
            code, output, errors = plugin(user, "top", "-n", mine.namespace, "--once", "-o", "json")
            assert (code, errors) == (0, "")
            shown = [json.loads(line) for line in output.splitlines()]
            assert {(each["namespace"], each["pod"]) for each in shown} == {(mine.namespace, "web")}
            for words in (("-A",), ("-n", theirs.namespace)):
                code, output, errors = plugin(user, "top", "--once", *words)
                assert (code, output) == (1, "")
                assert "list pods" in errors

            def ask(path: str, verb: str = "create", **content: object) -> str:
                body = ("--filename=-",) if verb == "create" else ()
                return user.run(verb, f"--raw=/api/v1/{path}", *body, stdin=json.dumps(content))

            proxy = f"namespaces/{NAMESPACE}/services/{LIVE}:live/proxy"
            found = json.loads(ask(f"{proxy}/v1/nodes/{nodes[0]}/pods", uids=[uid, "0" * 36]))
            assert [pod["uid"] for pod in found["pods"]] == [uid]
            for path in ("metrics", "v1/pods", f"v1/nodes/{nodes[0]}/pods/../../../../metrics"):
                with pytest.raises(ClusterError) as caught:
                    ask(f"{proxy}/{path}", uids=[uid])
                assert "orbidden" not in caught.value.output, "the relay itself answers"
            pods, agent = f"namespaces/{NAMESPACE}/pods", release.agent(nodes[0])
            for verb in ("create", "get"):
                for path in (
                    f"namespaces/{NAMESPACE}/services/{LIVE}/proxy/v1/nodes/{nodes[0]}/pods",
                    f"namespaces/{NAMESPACE}/services/http:{LIVE}:live/proxy/v1/nodes/{nodes[0]}/pods",
                    f"namespaces/{NAMESPACE}/services/{LIVE}:10478/proxy/v1/nodes/{nodes[0]}/pods",
                    f"namespaces/{NAMESPACE}/services/{LIVE}:metrics/proxy/metrics",
                    f"namespaces/{theirs.namespace}/services/{LIVE}:live/proxy/",
                    f"{pods}/{agent}:10477/proxy/v1/pods",
                    f"{pods}/{agent}:10475/proxy/metrics",
                    f"{pods}/{agent}/portforward",
                    f"nodes/{nodes[0]}:10477/proxy/v1/pods",
                ):
                    with pytest.raises(ClusterError) as caught:
                        ask(path, verb, uids=[uid])
                    assert "(Forbidden)" in caught.value.output, (verb, path)
            with pytest.raises(ClusterError) as caught:
                ask(f"{proxy}/v1/nodes/{nodes[0]}/pods", "get")
            assert "(Forbidden)" in caught.value.output
        stranger = signed_in(
            mine, "stranger", tmp_path / "stranger", binding_of(mine, "stranger", "ClusterRole", "view")
        )
        with stranger as user:
            code, output, errors = plugin(user, "top", "-n", mine.namespace, "--once")
            assert (code, output) == (1, "")
            assert (
                f"the right to create services/proxy {LIVE}:live in namespace {NAMESPACE} is missing"
                in errors
            )
    finally:
        here.delete(granted_live)


@pytest.mark.parametrize("namespace", ["kube-system", NAMESPACE])
def test_a_policy_in_a_protected_namespace_needs_the_label(release: Release, namespace: str) -> None:
    """Name the fix in the status, and accept the policy with the label."""
    here = Kubectl(release.admin.kubeconfig, release.admin.program, namespace)
    document = policy("rights", "rights-test", ingress=LIMIT)
    here.apply(document)
    try:
        until(lambda: condition(here, "rights", "Accepted").get("status") == "False")
        message = condition(here, "rights", "Accepted")["message"]
        assert f"needs the label {ALLOWED}=true" in message
        assert namespace in message
        here.run("label", "tbp", "rights", f"{ALLOWED}=true")
        until(lambda: condition(here, "rights", "Accepted").get("status") == "True")
        here.run("label", "tbp", "rights", f"{ALLOWED}-")
        until(lambda: condition(here, "rights", "Accepted").get("status") == "False")
    finally:
        here.delete(document)
