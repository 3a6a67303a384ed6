"""The rights of the chart's pods on their nodes, and the choice of nodes."""

from __future__ import annotations

import pytest

from tests.chart.chart import EVERYTHING, Chart, Document, Manifests
from tokenbucket import __version__

CAPABILITIES = {"NET_ADMIN", "NET_BROADCAST", "BPF", "PERFMON", "SYS_ADMIN"}
AGENTS = ("tokenbucket-agent", "tokenbucket-agent-canary")


@pytest.fixture(params=AGENTS)
def agent(full: Manifests, request: pytest.FixtureRequest) -> Document:
    return full.one("DaemonSet", request.param)


def container(pod: Document) -> Document:
    [only] = pod["containers"]
    return only


def test_the_agent_has_the_capabilities_that_it_needs_and_no_other(default: Manifests) -> None:
    """Do not run it privileged."""
    security = container(default.pods()["tokenbucket-agent"])["securityContext"]
    assert not security["privileged"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"]["add"]) == CAPABILITIES


def test_every_container_is_confined(full: Manifests) -> None:
    """Turn everything on."""
    assert len(full.pods()) == 5
    for pod in full.pods().values():
        security = container(pod)["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.get("hostPID")
        assert not pod.get("hostIPC")


def test_only_the_agent_has_access_to_its_node(full: Manifests) -> None:
    """Give other pods no root, no capability, and no network or folder of the node."""
    others = {name: pod for name, pod in full.pods().items() if name not in AGENTS}
    assert set(others) == {"tokenbucket-controller", "tokenbucket-cleanup", "tokenbucket-check"}
    for pod in others.values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert container(pod)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "hostNetwork" not in pod
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))


def test_the_agent_writes_one_folder_of_its_node(agent: Document) -> None:
    """Let it read two more."""
    pod = agent["spec"]["template"]["spec"]
    hosts = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    mounts = {hosts[each["name"]]: each for each in container(pod)["volumeMounts"] if each["name"] in hosts}
    assert {path for path, mount in mounts.items() if mount.get("readOnly")} == {
        "/run/netns",
        "/var/lib/cni/results",
    }
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {"/sys/fs/bpf"}
    assert mounts["/run/netns"]["mountPropagation"] == "HostToContainer", "pods come later"
    assert mounts["/sys/fs/bpf"]["mountPropagation"] == "HostToContainer", "it may be mounted later"


def test_the_agent_uses_the_network_of_the_node_and_cluster_dns(agent: Document) -> None:
    """Serve its probes to the node only."""
    pod = agent["spec"]["template"]["spec"]
    assert pod["hostNetwork"]
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(pod)[probe]["httpGet"]["host"] == "127.0.0.1"


def test_an_agent_that_starts_slowly_is_not_restarted(agent: Document) -> None:
    """Permit five minutes until its first answer, whether it is ready or not."""
    main = container(agent["spec"]["template"]["spec"])
    startup = main["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 300
    assert startup["httpGet"] == main["livenessProbe"]["httpGet"] != main["readinessProbe"]["httpGet"]


def test_the_agent_runs_on_every_linux_node_before_other_pods(agent: Document) -> None:
    """Tolerate all taints, also that of nodes that are not ready."""
    pod = agent["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_agents_are_replaced_a_tenth_at_a_time(agent: Document) -> None:
    """Stop a bad version at the first tenth, whose agents do not become ready."""
    assert agent["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "10%"},
    }


@pytest.mark.parametrize("labels", [{}, {"tokenbucket.dev/canary": "true"}, {"tokenbucket.dev/canary": "no"}])
def test_each_node_has_exactly_one_agent_with_canaries_too(full: Manifests, labels: dict[str, str]) -> None:
    """Avoid two agents that compete, and a node without one."""
    assert sum(runs_on(full.one("DaemonSet", name), labels) for name in AGENTS) == 1


def runs_on(agent: Document, labels: dict[str, str]) -> bool:
    affinity = agent["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return all(
        (labels.get(rule["key"]) in rule["values"]) == (rule["operator"] == "In")
        for rule in term["matchExpressions"]
    )


@pytest.mark.parametrize(
    "labels", [{"type": "virtual-kubelet"}, {"eks.amazonaws.com/compute-type": "fargate"}]
)
def test_a_node_that_runs_no_daemonset_gets_no_agent(full: Manifests, labels: dict[str, str]) -> None:
    """Avoid an agent that stays pending, on whose report every policy would wait."""
    for more in ({}, {"tokenbucket.dev/canary": "true"}):
        assert not any(runs_on(full.one("DaemonSet", name), labels | more) for name in AGENTS)


def test_each_alternative_of_an_affinity_keeps_the_requirements(chart: Chart) -> None:
    """Add them to each term, because terms are alternatives."""
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = [
        {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]},
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]},
    ]
    preferred = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    affinity = {"nodeAffinity": {key: {"nodeSelectorTerms": terms}}, **preferred}
    rendered = chart.render({"agent": {"affinity": affinity, "canary": {"enabled": True}}})
    for name in AGENTS:
        found = rendered.pods()[name]["affinity"]
        assert found.items() >= preferred.items()
        made = found["nodeAffinity"][key]["nodeSelectorTerms"]
        for before, after in zip(terms, made, strict=True):
            keys = [rule["key"] for rule in after["matchExpressions"]]
            assert keys[:3] == ["tokenbucket.dev/canary", "type", "eks.amazonaws.com/compute-type"]
            assert after["matchExpressions"][3:] == before.get("matchExpressions", [])
            assert after.get("matchFields") == before.get("matchFields")


def test_only_canaries_run_the_other_image(chart: Chart) -> None:
    canary = {"enabled": True, "image": {"tag": "next"}}
    rendered = chart.render({"image": {"repository": "x", "tag": "now"}, "agent": {"canary": canary}})
    images = {name: container(pod)["image"] for name, pod in rendered.pods().items()}
    assert images.pop("tokenbucket-agent-canary") == "x:next"
    assert set(images.values()) == {"x:now"}


def test_the_two_sets_of_agents_do_not_select_each_others_pods(full: Manifests) -> None:
    """Keep two DaemonSets from competing for a pod."""
    for name in AGENTS:
        selector = full.one("DaemonSet", name)["spec"]["selector"]["matchLabels"]
        selected = [
            other
            for other in AGENTS
            if selector.items()
            <= full.one("DaemonSet", other)["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert selected == [name]


def test_the_controller_finds_all_agents(full: Manifests) -> None:
    """Match the labels of both sets of agents, and of no other pod."""
    [argument] = [
        each
        for each in container(full.pods()["tokenbucket-controller"])["args"]
        if each.startswith("--agents=")
    ]
    selector = dict(pair.split("=") for pair in argument.removeprefix("--agents=").split(","))
    found = {
        each["metadata"]["name"]
        for each in full.documents
        if selector.items()
        <= each.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}).items()
    }
    assert found == set(AGENTS)


def test_a_second_controller_is_ready_to_lead(chart: Chart, default: Manifests) -> None:
    """Prefer another node, and drain one at a time. A budget of one replica would block drains."""
    spec = default.one("Deployment", "tokenbucket-controller")["spec"]
    assert spec["replicas"] == 2
    assert spec["template"]["spec"]["priorityClassName"] == "system-cluster-critical"
    (constraint,) = spec["template"]["spec"]["topologySpreadConstraints"]
    (budget,) = default.of("PodDisruptionBudget")
    labels = spec["template"]["metadata"]["labels"].items()
    for selector in (constraint["labelSelector"], budget["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels
    assert chart.render({"controller": {"replicas": 1}}).of("PodDisruptionBudget") == []


def test_additional_labels_cannot_replace_the_labels_of_a_selector(chart: Chart) -> None:
    labels = {"app.kubernetes.io/component": "mine", "team": "net"}
    rendered = chart.render({"agent": {"podLabels": labels}, "commonLabels": {"cost": "7"}})
    spec = rendered.one("DaemonSet", "tokenbucket-agent")["spec"]
    found = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= found.items()
    assert {"team": "net", "cost": "7"}.items() <= found.items()


def test_a_new_chart_with_the_same_image_restarts_no_pod(full: Manifests) -> None:
    """Keep the version of the chart out of the pods."""
    for each in full.documents:
        for label in each.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}):
            assert label not in {"helm.sh/chart", "app.kubernetes.io/version"}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, f"ghcr.io/tokenbucket/tokenbucket:{__version__}"),
        ({"repository": "localhost/tokenbucket", "tag": "test"}, "localhost/tokenbucket:test"),
        ({"tag": "x", "digest": f"sha256:{'0' * 64}"}, f"ghcr.io/tokenbucket/tokenbucket@sha256:{'0' * 64}"),
    ],
)
def test_all_pods_run_the_declared_image(chart: Chart, image: dict[str, str], expected: str) -> None:
    """Prefer a digest to a tag, and a tag to the version of the chart."""
    rendered = chart.render({"image": image})
    assert {container(pod)["image"] for pod in rendered.pods().values()} == {expected}


def test_all_pods_can_pull_from_a_private_registry(chart: Chart) -> None:
    """Include the pods of hooks."""
    rendered = chart.render({**EVERYTHING, "imagePullSecrets": [{"name": "registry"}]})
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in rendered.pods().values())
