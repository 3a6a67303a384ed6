"""Limits stay in force, without a gap and without tokens given twice, whatever happens around them."""

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
"""Longer than the 70 s after which a watch that hears nothing begins anew."""
_GRACE_S = 90
"""Time that a restarting agent has until the status of its policies is Unknown."""


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Both limits in force."""
    with two_limited_pods(release, nodes, "survival") as made:
        made.apply()
        made.wait()
        yield made


@pytest.fixture(scope="module")
def held(release: Release, with_fq: list[str], nodes: list[str]) -> Iterator[TwoLimits]:
    """The same with Delay."""
    with two_held_pods(release, with_fq, nodes, "survival-delay") as made:
        made.apply()
        made.wait()
        yield made


@pytest.fixture(params=["shop", "held"], ids=["Drop", "Delay"])
def either(request: pytest.FixtureRequest) -> TwoLimits:
    """What exceeds is dropped, or held back."""
    limits: TwoLimits = request.getfixturevalue(request.param)
    return limits


def test_agents_killed(either: TwoLimits, shell: NodeShell) -> None:
    """They come back within the grace period of the status, and the limits hold meanwhile."""
    with either.unbroken():
        for _ in range(2):
            assert _kill_agents(either, shell) >= len(set(either.nodes))
            either.release.wait()


def _kill_agents(shop: TwoLimits, shell: NodeShell) -> int:
    """Returns how many processes that were."""
    killed = 0
    for node in set(shop.nodes):
        pids = shell.run(node, "sh", "-c", AGENT_PIDS).split()
        if pids:
            shell.run(node, "sh", "-c", f"kill -KILL {' '.join(pids)} || true")  # one may just have ended
        killed += len(pids)
    return killed


def test_agents_whose_image_is_missing(shop: TwoLimits) -> None:
    """Limits need no agent, but nobody knows of them then."""
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
    """As ``kubectl get tbn`` shows it of each node."""
    return [
        line.split()[1] for line in shop.kubectl.run("get", "tbn", *shop.nodes, "--no-headers").splitlines()
    ]


@pytest.mark.kubernetes
@pytest.mark.usefixtures("cluster")  # only its nodes have that image
def test_an_upgrade_to_another_pin_layout_and_back(either: TwoLimits, shell: NodeShell) -> None:
    """By ``helm upgrade`` and ``helm rollback``: tokens are kept, and the pins of the other layout go."""
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


def test_the_kill_switch(either: TwoLimits) -> None:
    """Off lifts the limits, and Enforce puts them back."""
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


def test_a_switch_that_only_observes(shop: TwoLimits) -> None:
    """Everything passes, and nobody takes that for a limit: not ready, and the column Action says so."""
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


def test_a_switch_that_is_deleted_changes_nothing(shop: TwoLimits) -> None:
    """Off stays Off, ``kubectl get tbn`` says what is wrong, and ``helm upgrade`` brings it back."""
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
def test_a_slip_in_the_switch_is_refused(shop: TwoLimits, data: dict[str, str | None], message: str) -> None:
    """Whoever needs it is in a hurry, and would believe that it is off."""
    patch = json.dumps({"data": data})
    with pytest.raises(ClusterError, match=message):
        shop.release.kubectl.run("patch", "configmap", "tokenbucket", "--type=merge", f"--patch={patch}")


@pytest.mark.parametrize("word", ["Of", ""])
def test_a_word_that_the_switch_does_not_know_is_refused(shop: TwoLimits, word: str) -> None:
    """In both places, with the words that it knows."""
    with pytest.raises(ClusterError, match=r"data.enforcement: .* must be one of Enforce, Observe, Off"):
        shop.release.enforce(word)
    with pytest.raises(ClusterError, match=r"tokenbucket.dev/enforcement: .* must be one of Enforce, Obs"):
        shop.kubectl.run("label", "node", shop.nodes[0], f"tokenbucket.dev/enforcement={word}")


def test_a_word_that_comes_past_the_check_changes_nothing(shop: TwoLimits) -> None:
    """Off stays Off, and ``kubectl get tbn`` says what is wrong."""
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
    """Whether the API server does: it learns of a binding's end a moment later."""
    try:
        shop.release.enforce(word)
    except ClusterError:
        return False
    return True


def test_a_node_with_a_wrong_word_can_still_be_changed(shop: TwoLimits) -> None:
    """Drained, or tainted by the node controller: only the word itself is refused."""
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


def test_the_kill_switch_of_one_node(shop: TwoLimits) -> None:
    """By the node's label; the other node goes on."""
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


def test_an_api_server_that_is_away(shop: TwoLimits, cluster: Cluster) -> None:
    """Limits hold for as long, and an edit afterwards is in force before Kubernetes calls the nodes ready
    again. Only status waits for that.
    """
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


def test_a_deletion_that_no_watch_reports(shop: TwoLimits, cluster: Cluster) -> None:
    """The API server is away, a policy is deleted, and etcd is compacted: then the API server has nothing but
    410 for whoever asks what happened since. The limit is lifted, and the others stay.
    """
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
    """A request to etcd, by its gateway for HTTP."""
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
