"""The rights of the chart's service accounts in the API."""

from __future__ import annotations

import pytest

from tests.chart.chart import Chart, Manifests
from tests.chart.rights import (
    EVENTS,
    EVERYWHERE,
    IN_KUBE_SYSTEM,
    IN_THE_RELEASES_NAMESPACE,
    NODES,
    OVERRIDE,
    POD_STATUS,
    POLICIES,
    SWITCH,
    WATCH,
    Rights,
    rights,
)


def granted(manifests: Manifests, binding: str, account: str, namespace: str | None = None) -> Rights:
    """Return the rights of an account by bindings of a kind, each to a role of the chart."""
    found: Rights = {}
    for each in manifests.of(binding):
        if each["metadata"].get("namespace") != namespace:
            continue
        subjects = {(subject["kind"], subject["name"]) for subject in each["subjects"]}
        if ("ServiceAccount", account) in subjects:
            found |= rights(manifests.one(each["roleRef"]["kind"], each["roleRef"]["name"]))
    return found


@pytest.mark.parametrize("account", EVERYWHERE)
def test_an_account_has_exactly_the_rights_that_it_needs(default: Manifests, account: str) -> None:
    """Compare the rights in the cluster and in the namespace of the release."""
    assert granted(default, "ClusterRoleBinding", account) == EVERYWHERE[account]
    own = granted(default, "RoleBinding", account, "tokenbucket-system")
    assert own == IN_THE_RELEASES_NAMESPACE[account]
    assert granted(default, "RoleBinding", account, "kube-system") == IN_KUBE_SYSTEM.get(account, {})


def test_no_other_account_has_rights(full: Manifests) -> None:
    """Bind only the four accounts in the namespace of the release."""
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in full.of(kind):
            [subject] = binding["subjects"]
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "tokenbucket-system")
            assert subject["name"] in EVERYWHERE


@pytest.mark.parametrize(
    ("value", "further"),
    [
        ({"removeTaint": True}, {NODES: WATCH | {"get", "patch"}}),
        ({"readinessGates": True}, {POD_STATUS: frozenset({"patch"})}),
        ({"bandwidthAnnotations": True}, {EVENTS: frozenset({"create"})}),
    ],
)
def test_a_feature_adds_one_right(chart: Chart, value: dict[str, bool], further: Rights) -> None:
    """Grant it only if the feature is on."""
    rendered = chart.render({"agent": value})
    expected = EVERYWHERE["tokenbucket-agent"] | further
    assert granted(rendered, "ClusterRoleBinding", "tokenbucket-agent") == expected


def test_only_the_two_enforcement_configmaps_are_accessible(
    full: Manifests,
) -> None:
    """Keep other ConfigMaps of the namespace private."""
    roles = (*full.of("ClusterRole"), *full.of("Role"))
    seen = {what for role in roles for what in rights(role) if what.resource == "configmaps"}
    assert seen == {SWITCH, OVERRIDE}
    assert full.one("ConfigMap", SWITCH.name)["data"]["enforcement"]


def test_no_account_has_wildcard_rights_or_reads_secrets(full: Manifests) -> None:
    """Turn everything on."""
    for role in (*full.of("ClusterRole"), *full.of("Role")):
        for what, verbs in rights(role).items():
            assert "*" not in {*what, *verbs}
            assert what.resource not in {"secrets", "serviceaccounts/token", "pods/exec"}


def test_only_pods_that_use_the_api_server_get_a_token(full: Manifests) -> None:
    """Request it in the pod, so that other pods of the account get none."""
    assert all(not account["automountServiceAccountToken"] for account in full.of("ServiceAccount"))
    assert all(pod["automountServiceAccountToken"] for pod in full.pods().values())


def test_every_pod_has_an_account_of_its_own(default: Manifests) -> None:
    """Never use the default account of the namespace."""
    accounts = {name: pod["serviceAccountName"] for name, pod in default.pods().items()}
    assert accounts == {name: name for name in EVERYWHERE}


def test_viewers_of_a_namespace_can_read_its_policies(default: Manifests) -> None:
    """Grant no right to write."""
    role = default.one("ClusterRole", "tokenbucket-view")
    assert role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert set(rights(role).values()) == {frozenset({"get", "list", "watch"})}
    assert "ClusterRole/tokenbucket-edit" not in default.names()


@pytest.mark.parametrize(
    ("value", "roles"),
    [("aggregateToEdit", {"edit", "admin"}), ("aggregateToAdmin", {"admin"})],
)
def test_editors_of_a_namespace_write_policies_only_if_a_value_permits_it(
    chart: Chart, value: str, roles: set[str]
) -> None:
    """Use one value each for edit and admin. Only the controller writes the status."""
    role = chart.render({"rbac": {value: True}}).one("ClusterRole", "tokenbucket-edit")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    labels = {key.removeprefix(prefix) for key in role["metadata"]["labels"] if key.startswith(prefix)}
    assert labels == roles
    assert set(rights(role)) == {POLICIES}


def test_roles_can_be_created_outside_of_the_chart(chart: Chart) -> None:
    """Use existing accounts."""
    values = {
        "rbac": {"create": False},
        "agent": {"serviceAccount": {"create": False, "name": "mine"}},
        "controller": {"serviceAccount": {"create": False, "name": "its"}},
    }
    rendered = chart.render(values)
    assert rendered.pods()["tokenbucket-agent"]["serviceAccountName"] == "mine"
    assert rendered.pods()["tokenbucket-controller"]["serviceAccountName"] == "its"
    kept = {"tokenbucket-cleanup", "tokenbucket-check"}
    for kind in ("ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"):
        assert {each["metadata"]["name"] for each in rendered.of(kind)} == kept


def test_the_priority_level_covers_all_requests(full: Manifests) -> None:
    """Include the Lease of the controller, which loses the lead without an answer."""
    for account in ("tokenbucket-agent", "tokenbucket-controller"):
        covered = {
            (group, resource)
            for rule in full.one("FlowSchema", account)["spec"]["rules"]
            for requests in rule["resourceRules"]
            for group in requests["apiGroups"]
            for resource in requests["resources"]
        }
        namespaces = (None, "tokenbucket-system", "kube-system")
        needed = {
            (each.group, each.resource)
            for namespace in namespaces
            for each in granted(
                full, "RoleBinding" if namespace else "ClusterRoleBinding", account, namespace
            )
        }
        assert needed <= covered
