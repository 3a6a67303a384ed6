"""The chart on different clusters: mirrors, restrictions, API servers, operating systems."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Any

import pytest

from tests.chart.chart import EVERYTHING, Chart, Document, Manifests, merged
from tests.chart.rights import rights

AGENT, CONTROLLER = "tokenbucket-agent", "tokenbucket-controller"
HOOKS = ("tokenbucket-cleanup", "tokenbucket-check")


def containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def everything(chart: Chart, values: dict[str, Any]) -> Manifests:
    return chart.render(merged([EVERYTHING, {"agent": {"mountBpffs": True}}, values]))


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("ghcr.io/tokenbucket/tokenbucket", "mirror.example:5000/tokenbucket/tokenbucket:x"),
        ("localhost/tokenbucket", "mirror.example:5000/tokenbucket:x"),
        ("registry:5000/a/b", "mirror.example:5000/a/b:x"),
        ("tokenbucket/tokenbucket", "mirror.example:5000/tokenbucket/tokenbucket:x"),
    ],
)
def test_a_parent_chart_sets_the_registry_of_every_image(
    chart: Chart, repository: str, expected: str
) -> None:
    """Replace the registry of the repository, if it names one."""
    values = {
        "global": {"imageRegistry": "mirror.example:5000"},
        "image": {"repository": repository, "tag": "x"},
    }
    found = {each["image"] for pod in everything(chart, values).pods().values() for each in containers(pod)}
    assert found == {expected}


def test_a_parent_chart_adds_pull_secrets_to_every_pod(chart: Chart) -> None:
    """Accept names and objects, and add each Secret once."""
    values = {"global": {"imagePullSecrets": ["a", {"name": "b"}]}, "imagePullSecrets": [{"name": "b"}]}
    for pod in everything(chart, values).pods().values():
        assert sorted(each["name"] for each in pod["imagePullSecrets"]) == ["a", "b"]


def test_every_pod_reaches_the_api_server_without_its_service(chart: Chart) -> None:
    """Support nodes without kube-proxy, where the address of the Service leads nowhere."""
    values = {"k8sServiceHost": "api.example", "k8sServicePort": 6443}
    for pod in chart.render(merged([EVERYTHING, values])).pods().values():
        [container] = pod["containers"]
        given = {each["name"]: each.get("value") for each in container["env"]}
        assert (given["KUBERNETES_SERVICE_HOST"], given["KUBERNETES_SERVICE_PORT"]) == ("api.example", "6443")


@pytest.mark.parametrize(("role", "name"), [("agent", AGENT), ("controller", CONTROLLER)])
def test_arguments_variables_and_volumes_can_be_added(chart: Chart, role: str, name: str) -> None:
    """Append arguments to those of the chart."""
    volume, mount = {"name": "extra", "emptyDir": {}}, {"name": "extra", "mountPath": "/extra"}
    variable = {"name": "EXTRA", "value": "1"}
    extra = {
        "extraArgs": ["--extra=1"],
        "extraEnv": [variable],
        "extraVolumes": [volume],
        "extraVolumeMounts": [mount],
    }
    before = chart.render(EVERYTHING).pods()[name]
    after = chart.render(merged([EVERYTHING, {role: extra}])).pods()[name]
    [old], [new] = before["containers"], after["containers"]
    assert new["args"] == [*old["args"], "--extra=1"]
    for found, others, added in (
        (new["env"], old["env"], variable),
        (new["volumeMounts"], old["volumeMounts"], mount),
        (after["volumes"], before["volumes"], volume),
    ):
        assert sorted(found, key=itemgetter("name")) == sorted([*others, added], key=itemgetter("name"))


@pytest.mark.parametrize(
    ("role", "names"), [("agent", [AGENT, f"{AGENT}-canary"]), ("controller", [CONTROLLER, *HOOKS])]
)
def test_each_field_of_a_security_context_can_be_replaced(chart: Chart, role: str, names: list[str]) -> None:
    """Accept a false value too, and keep the other fields."""
    own = {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}, "fsGroup": 0}
    before = chart.render(EVERYTHING).pods()
    after = chart.render(merged([EVERYTHING, {role: {"podSecurityContext": own}}])).pods()
    for name in names:
        assert after[name]["securityContext"] == before[name]["securityContext"] | own


def test_the_seccomp_profile_of_the_agents_can_be_set(chart: Chart) -> None:
    """Accept a name or a profile on the nodes, as for AppArmor."""
    for value, profile in {
        "Unconfined": {"type": "Unconfined"},
        "profiles/agent.json": {"type": "Localhost", "localhostProfile": "profiles/agent.json"},
    }.items():
        pod = chart.render({"agent": {"seccompProfile": value}}).pods()[AGENT]
        assert pod["securityContext"]["seccompProfile"] == profile


def test_hooks_run_where_the_controller_runs(chart: Chart) -> None:
    """Start them on clusters with taints, or without images on some nodes."""
    where = {
        "nodeSelector": {"pool": "system"},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "high",
    }
    pods = chart.render({"controller": where}).pods()
    for name in (CONTROLLER, *HOOKS):
        found = {key: pods[name][key] for key in where}
        assert found == where | {"nodeSelector": {"kubernetes.io/os": "linux", "pool": "system"}}


def test_every_object_has_the_common_annotations(chart: Chart) -> None:
    """Keep its own annotations, and those of pods, whose change would restart them."""
    annotations = {"team": "net", "helm.sh/hook": "none", "helm.sh/resource-policy": "none"}
    before = {
        str(each["metadata"]["name"]) + each["kind"]: each for each in chart.render(EVERYTHING).documents
    }
    for each in chart.render(merged([EVERYTHING, {"commonAnnotations": annotations}])).documents:
        old = before[str(each["metadata"]["name"]) + each["kind"]]
        expected = annotations | old["metadata"].get("annotations", {})
        assert each["metadata"]["annotations"] == expected
        assert each.get("spec", {}).get("template") == old.get("spec", {}).get("template")


def test_a_rollout_waits_for_agents_that_stay_ready(chart: Chart) -> None:
    """Wait for the time in the value."""
    rendered = chart.render({"agent": {"minReadySeconds": 30}})
    assert rendered.one("DaemonSet", AGENT)["spec"]["minReadySeconds"] == 30


def test_controllers_can_be_spread(chart: Chart) -> None:
    """Use the constraints of the user."""
    spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]
    rendered = chart.render({"controller": {"topologySpreadConstraints": spread}})
    assert rendered.pods()[CONTROLLER]["topologySpreadConstraints"] == spread


def test_only_a_missing_bpffs_needs_a_privileged_container(chart: Chart) -> None:
    """Run it before the agent, with access to one folder of the node."""
    assert not any("initContainers" in pod for pod in chart.render(EVERYTHING).pods().values())
    pod = chart.render({"agent": {"mountBpffs": True}}).pods()[AGENT]
    [mounts] = pod["initContainers"]
    assert mounts["securityContext"]["privileged"]
    [mount] = mounts["volumeMounts"]
    assert mount == {
        "name": "bpffs",
        "mountPath": "/sys/fs/bpf",
        "mountPropagation": "Bidirectional",
    }
    [agent] = pod["containers"]
    assert not agent["securityContext"]["privileged"]


def test_openshift_admits_what_the_agent_needs_and_no_more(chart: Chart) -> None:
    """Derive the constraints from the pod, and give them to its account only."""
    assert not chart.render(EVERYTHING).of("SecurityContextConstraints")
    for mounts in (False, True):
        rendered = chart.render({"securityContextConstraints": True, "agent": {"mountBpffs": mounts}})
        [allowed] = rendered.of("SecurityContextConstraints")
        pod = rendered.pods()[AGENT]
        [agent] = pod["containers"]
        assert allowed["users"] == [f"system:serviceaccount:tokenbucket-system:{AGENT}"]
        assert allowed["allowedCapabilities"] == agent["securityContext"]["capabilities"]["add"]
        assert allowed["allowHostNetwork"] is pod["hostNetwork"]
        assert allowed["allowPrivilegedContainer"] is mounts
        kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
        assert kinds <= set(allowed["volumes"])


def test_openshift_admits_the_fixed_user_of_the_other_pods(chart: Chart) -> None:
    """Use a role of OpenShift in the namespace of the release."""
    rendered = chart.render({"securityContextConstraints": True})
    bound = {
        each["subjects"][0]["name"]
        for each in rendered.of("RoleBinding")
        if each["roleRef"]["name"] == "system:openshift:scc:nonroot-v2"
    }
    accounts = {pod["serviceAccountName"] for name, pod in rendered.pods().items() if name != AGENT}
    assert bound == accounts


def test_no_role_of_the_chart_grants_a_constraint(chart: Chart) -> None:
    """Keep the rights of the agent's pod from users of a role of the chart."""
    rendered = chart.render({"securityContextConstraints": True})
    for role in (*rendered.of("ClusterRole"), *rendered.of("Role")):
        assert not [what for what in rights(role) if re.search("securitycontext", what.resource)]
