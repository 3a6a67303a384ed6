"""Disturbances of enforced limits, which detach and attach programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.e2e_cilium.data_plane import DataPlane
from tests.e2e_cilium.flow import Flow
from tests.e2e_cilium.laboratory import NODE, Laboratory
from tests.e2e_cilium.limits import FAR, LIMITS, Limit
from tests.e2e_cilium.network_policies import accept_all

REGENERATIONS = 20
DROP = [limit for limit in LIMITS if limit.kind == "drop"]
Disturbance = Callable[[DataPlane, Laboratory], None]


def regenerate(data_plane: DataPlane, lab: Laboratory) -> None:
    """Make Cilium load the programs of the pods again and again."""
    policies = [accept_all(str(limit)) for limit in DROP]
    for number in range(REGENERATIONS):
        enforced = number % 2 == 0
        (lab.kubectl.apply if enforced else lab.kubectl.delete)(*policies)
        for limit in DROP:
            data_plane.wait_enforced(NODE, lab.kubectl.namespace, str(limit), enforced=enforced)


def restart_cilium(data_plane: DataPlane, _: Laboratory) -> None:
    """Kill Cilium's agents, and start them again."""
    data_plane.restart()


def restart_agents(_: DataPlane, lab: Laboratory) -> None:
    """Delete tokenbucket's agents, and wait for the next."""
    lab.release.kubectl.run("rollout", "restart", "daemonset/tokenbucket-agent")
    lab.release.wait()


DISTURBANCES: Mapping[str, Disturbance] = {
    "regenerations": regenerate,
    "restart of Cilium": restart_cilium,
    "restart of tokenbucket": restart_agents,
}


def flows_during(disturb: Callable[[], None], lab: Laboratory) -> list[tuple[Limit, Flow]]:
    """Send through the limits, one flow after another, from before a disturbance to after its end."""
    found: list[tuple[Limit, Flow]] = []
    with ThreadPoolExecutor() as pool:
        pending = pool.submit(disturb)
        while not found or not pending.done():
            found += [(limit, lab.send(limit, FAR)) for limit in DROP]
        pending.result()
    return found
