"""Limits stay enforced without a gap and without tokens given twice, during all disturbances."""

from __future__ import annotations

import base64
import itertools
import json
import sys
import time
from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster
from cluster.errors import ClusterError
from cluster.node_shell import NodeShell
from tests.e2e.agents import AGENT_PIDS
from tests.e2e.image import LAYOUT_TAG
from tests.e2e.release import Release, policy, until, wait_ready
from tests.e2e.two_limits import (
    BURST,
    LIMIT,
    RATE,
    TOLERANCE,
    TwoLimits,
    layouts,
    limited,
    two_held_pods,
    two_limited_pods,
    unlimited,
)

_AWAY_S = 75
"""Longer than the 70 s after which a watch without contact starts again."""
_GRACE_S = 90
"""Time that a restarting agent has until the status of its policies is Unknown."""


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Enforce both limits."""
    with two_limited_pods(release, nodes, "survival") as made:
        made.apply()
        made.wait()
        yield made


@pytest.fixture(scope="module")
def held(release: Release, with_fq: list[str], nodes: list[str]) -> Iterator[TwoLimits]:
    """Enforce both limits with Delay."""
    with two_held_pods(release, with_fq, nodes, "survival-delay") as made:
        made.apply()
        made.wait()
        yield made


@pytest.fixture(params=["shop", "held"], ids=["Drop", "Delay"])
def either(request: pytest.FixtureRequest) -> TwoLimits:
    """Enforce both limits with Drop or Delay."""
    limits: TwoLimits = request.getfixturevalue(request.param)
    return limits


def test_limits_survive_killed_agents(either: TwoLimits, shell: NodeShell) -> None:
    """Let the agents return within the grace period of the status."""
    with either.unbroken():
        for _ in range(2):
            assert _kill_agents(either, shell) >= len(set(either.nodes))
            either.release.wait()


def _kill_agents(shop: TwoLimits, shell: NodeShell) -> int:
    """Kill the agents. Return the number of processes."""
    killed = 0
    for node in set(shop.nodes):
        pids = shell.run(node, "sh", "-c", AGENT_PIDS).split()
        if pids:
            shell.run(node, "sh", "-c", f"kill -KILL {' '.join(pids)} || true")  # one may just have ended
        killed += len(pids)
    return killed


def test_limits_survive_agents_whose_image_is_missing(shop: TwoLimits) -> None:
    """Report the policies as unknown."""
    with shop.unbroken():
        here = shop.release.kubectl
        here.run("set", "image", "daemonset/tokenbucket-agent", "*=localhost/tokenbucket:none")
        try:
            until(lambda: shop.programmed("Unknown", "AgentUnavailable"), timeout_s=_GRACE_S + 60)
            until(lambda: set(_agents_ready(shop)) == {"False"})
        finally:
            here.run("rollout", "undo", "daemonset/tokenbucket-agent")
        shop.release.wait()
        until(lambda: set(_agents_ready(shop)) == {"True"})


def _agents_ready(shop: TwoLimits) -> list[str]:
    """Return the readiness of each agent, as ``kubectl get tbn`` shows it."""
    return [
        line.split()[1] for line in shop.kubectl.run("get", "tbn", *shop.nodes, "--no-headers").splitlines()
    ]


@pytest.mark.kubernetes
@pytest.mark.usefixtures("cluster")  # only its nodes have that image
def test_limits_survive_an_upgrade_of_the_pin_layout_and_a_rollback(
    either: TwoLimits, shell: NodeShell
) -> None:
    """Run ``helm upgrade`` and ``helm rollback``. Keep tokens, and remove the pins of the other layout."""
    # What passes while a filter is replaced is charged after it, and an emulated node takes 50 ms for that.
    tolerance = TOLERANCE if either.action == "Drop" else BURST // 2
    with either.unbroken(tolerance), either.release.installed_with(LAYOUT_TAG):
        _has_pins(either, shell, "v3")
        either.wait()
        either.release.rollback()
        _has_pins(either, shell, "v2")


def _has_pins(shop: TwoLimits, shell: NodeShell, layout: str) -> None:
    for node in shop.nodes:
        until(lambda node=node: layouts(shell, node) == [layout])  # type: ignore[misc]


def test_mode_off_detaches_limits_and_enforce_restores_them(either: TwoLimits) -> None:
    with either.under_traffic() as flows:
        either.release.enforce("Off")
        try:
            until(lambda: either.programmed("False", "Off"))
            for flow in flows:
                until(lambda flow=flow: unlimited(flow))  # type: ignore[misc]
        finally:
            either.release.enforce("Enforce")
        either.wait()
        for flow in flows:
            flow.renew()
        for flow in flows:
            limited(flow)


def test_mode_observe_forwards_all_packets_and_is_not_ready(shop: TwoLimits) -> None:
    """Show the mode in the column Action."""
    with shop.under_traffic() as flows:
        shop.release.enforce("Observe")
        try:
            until(lambda: shop.programmed("False", "Observed"))
            assert "Observe" in shop.kubectl.run("get", "tbp", "web", "--output=jsonpath={.status.action}")
            for flow in flows:
                until(lambda flow=flow: unlimited(flow))  # type: ignore[misc]
        finally:
            shop.release.enforce("Enforce")
        shop.wait()


def test_a_deleted_enforcement_configmap_keeps_the_mode(shop: TwoLimits) -> None:
    """Show the problem in ``kubectl get tbn``, and restore the ConfigMap by ``helm upgrade``."""
    shop.release.enforce("Off")
    try:
        until(lambda: shop.programmed("False", "Off"))
        shop.release.kubectl.run("delete", "configmap", "tokenbucket")
        until(lambda: "ConfigMap: is missing" in shop.kubectl.run("get", "tbn", shop.nodes[0]))
        assert shop.kubectl.get("tbn", shop.nodes[0])["status"]["enforcement"] == "Off"
        assert shop.programmed("False", "Off")
    finally:
        shop.release.install()
    shop.wait()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"enforcements": "Off"}, "unknown key"),
        ({"cleanup": "yes"}, "data.cleanup: must be"),
        ({"enforcement": None}, "must be one of"),
    ],
)
def test_a_mistake_in_the_enforcement_configmap_is_rejected(
    shop: TwoLimits, data: dict[str, str | None], message: str
) -> None:
    """Keep users in a hurry from believing that enforcement is off."""
    patch = json.dumps({"data": data})
    with pytest.raises(ClusterError, match=message):
        shop.release.kubectl.run("patch", "configmap", "tokenbucket", "--type=merge", f"--patch={patch}")


@pytest.mark.parametrize("word", ["Of", ""])
def test_an_invalid_mode_is_rejected(shop: TwoLimits, word: str) -> None:
    """Reject it in the ConfigMap and in the label, and name the valid modes."""
    with pytest.raises(ClusterError, match=r"data.enforcement: .* must be one of Enforce, Observe, Off"):
        shop.release.enforce(word)
    with pytest.raises(ClusterError, match=r"tokenbucket.dev/enforcement: .* must be one of Enforce, Obs"):
        shop.kubectl.run("label", "node", shop.nodes[0], f"tokenbucket.dev/enforcement={word}")


def test_a_stored_invalid_mode_changes_nothing(shop: TwoLimits) -> None:
    """Keep Off, and show the problem in ``kubectl get tbn``."""
    binding = "validatingadmissionpolicybinding/tokenbucket-enforcement-of-release"
    document = shop.kubectl.get(*binding.split("/"))
    shop.release.enforce("Off")
    try:
        until(lambda: shop.programmed("False", "Off"))
        shop.kubectl.run("delete", binding)
        until(lambda: _accepts(shop, "Of"))
        until(lambda: "'Of' must be one of" in shop.kubectl.run("get", "tbn", shop.nodes[0]))
        assert shop.kubectl.get("tbn", shop.nodes[0])["status"]["enforcement"] == "Off"
        assert shop.programmed("False", "Off")
    finally:
        shop.release.enforce("Enforce")
        del document["metadata"]["resourceVersion"], document["metadata"]["uid"]
        shop.kubectl.apply(document)
    shop.wait()
    assert "must be one of" not in shop.kubectl.run("get", "tbn")


def _accepts(shop: TwoLimits, word: str) -> bool:
    """Return whether the API server accepts it. It notices a removed binding a moment later."""
    try:
        shop.release.enforce(word)
    except ClusterError:
        return False
    return True


def test_a_node_with_an_invalid_mode_can_still_be_changed(shop: TwoLimits) -> None:
    """Drain it or taint it. Reject only the mode."""
    node, label = shop.nodes[0], "tokenbucket.dev/enforcement"
    binding = "validatingadmissionpolicybinding/tokenbucket-enforcement-of-node"
    document = shop.kubectl.get(*binding.split("/"))
    del document["metadata"]["resourceVersion"], document["metadata"]["uid"]

    def accepts(word: str) -> bool:
        try:
            shop.kubectl.run("label", "node", node, f"{label}={word}", "--overwrite")
        except ClusterError:
            return False
        return True

    shop.kubectl.run("delete", binding)
    try:
        until(lambda: accepts("Of"))
        shop.kubectl.apply(document)
        words = itertools.cycle(["O", "F"])
        until(lambda: not accepts(next(words)))
        word = shop.kubectl.get("node", node)["metadata"]["labels"][label]
        shop.kubectl.run("cordon", node)
        shop.kubectl.run("uncordon", node)
        assert word == shop.kubectl.get("node", node)["metadata"]["labels"][label]
    finally:
        shop.kubectl.run("label", "node", node, f"{label}-")
        shop.kubectl.apply(document)
    shop.wait()


def test_the_label_of_a_node_turns_off_its_limits_only(shop: TwoLimits) -> None:
    """Keep the limits of the other node."""
    node, label = shop.nodes[0], "tokenbucket.dev/enforcement"
    with shop.under_traffic() as (received, sent):
        shop.kubectl.run("label", "node", node, f"{label}=Off")
        try:
            until(lambda: unlimited(received))
            assert not shop.active(node)
        finally:
            shop.kubectl.run("label", "node", node, f"{label}-")
        shop.wait()
        received.renew()
        limited(received)
        limited(sent)


def test_limits_survive_an_outage_of_the_api_server(shop: TwoLimits, cluster: Cluster) -> None:
    """Enforce an edit before Kubernetes reports the nodes as ready again."""
    with shop.under_traffic() as (received, sent):
        cluster.root.stop("kube-apiserver")
        try:
            time.sleep(_AWAY_S)
        finally:
            cluster.start_api_server()
        limited(received)
        limited(sent)
        shop.kubectl.apply(policy("web", "web", ingress={**LIMIT, "rate": {"bits": RATE // 2}}))
        until(lambda: received.bits_per_s() < 0.75 * RATE, timeout_s=30)
        received.renew()
        limited(received, RATE // 2)
        shop.apply()
        shop.wait()
        limited(sent)


def test_a_deletion_that_no_watch_reports_removes_the_limit(shop: TwoLimits, cluster: Cluster) -> None:
    """Delete a policy during an outage, and compact etcd, so that every watch gets 410."""
    shop.kubectl.apply(policy("gone", "sink", ingress=LIMIT))
    wait_ready(shop.kubectl, "gone", 1)
    seen = shop.kubectl.get("tbp", "gone")["metadata"]["resourceVersion"]
    with shop.unbroken():
        cluster.root.stop("kube-apiserver")
        try:
            # As another API server would delete it.
            key = f"/registry/tokenbucket.dev/tokenbucketpolicies/{shop.kubectl.namespace}/gone"
            deleted = _etcd(cluster, "kv/deleterange", key=base64.b64encode(key.encode()).decode())
            assert deleted["deleted"] == "1"
            _etcd(cluster, "kv/compaction", revision=deleted["header"]["revision"], physical=True)
        finally:
            cluster.start_api_server()
        policies = "/apis/tokenbucket.dev/v1alpha1/tokenbucketpolicies"
        watch = f"{policies}?watch=1&resourceVersion={seen}&timeoutSeconds=9"
        assert '"code":410' in shop.kubectl.run("get", "--raw", watch)
        until(lambda: shop.active(shop.nodes[0]) == {"web"})


def _etcd(cluster: Cluster, what: str, **request: object) -> dict[str, object]:
    """Send a request to etcd, by its HTTP gateway."""
    program = (
        "import sys, urllib.request as http;"
        "request = http.Request(sys.argv[1], sys.argv[2].encode());"
        "print(http.urlopen(request, timeout=30).read().decode())"
    )
    url = f"http://127.0.0.1:2379/v3/{what}"
    answer: dict[str, object] = json.loads(
        cluster.root.run([sys.executable, "-I", "-c", program, url, json.dumps(request)])
    )
    return answer
