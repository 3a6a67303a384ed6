"""The output of ``tokenbucket inspect``: why a pod is limited or not."""

from __future__ import annotations

from pathlib import Path

from tests.netns.agent import Agent, drop, free_slots, policy, tokenbucket, wait
from tests.netns.in_process import write_result
from tests.netns.lab import Lab
from tokenbucket.core.api.pod import PodId


def test_the_policy_of_a_limit_is_named(lab: Lab, agent: Agent) -> None:
    """The output contains the generation, so that a user can follow an edit."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.limit(web, ingress=drop(1, 10))
    wait(lambda: "policy          default/web, generation" in tokenbucket("inspect", "web").stdout, agent.log)
    assert "state           metering" in tokenbucket("inspect", "web").stdout
    agent.write("policy.yaml", policy("web", app="web", mode="Observe", ingress=drop(1, 10)))
    wait(lambda: "state           observing" in tokenbucket("inspect", "web").stdout, agent.log)


def test_a_pod_without_a_limit_is_on_this_node_or_not(lab: Lab, tmp_path: Path) -> None:
    """The CNI results contain this information without the API server."""
    free_slots()
    write_result(tmp_path, PodId("shop", "web", "uid"), "s1", lab.pod("web", ["10.2.1.2/24"]))
    ended = lab.pod("ended", ["10.2.2.2/24"])
    write_result(tmp_path, PodId("shop", "ended", "uid"), "s2", ended)
    lab.delete(ended)
    options = ("--cni-results", str(tmp_path))
    here = tokenbucket("inspect", "shop/web", *options, check=False)
    assert (here.returncode, "no policy selects it" in here.stderr) == (4, True), here.stderr
    for name in ("shop/other", "shop/ended"):  # a result can be left over
        there = tokenbucket("inspect", name, *options, check=False)
        assert (there.returncode, "may be on another node" in there.stderr) == (4, True), there.stderr
