"""Limits that a run takes from the previous run."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import permutations, product

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Policy, Rate
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.limits.slot import Owner, Slot, SlotConfig, SlotKey
from tokenbucket.core.planning.attachment import DataPlane, End, Interface
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import Search, desired
from tokenbucket.core.planning.kept import NodeSettings
from tokenbucket.core.planning.pod_limits import Desired, Memory, PodInterfaces
from tokenbucket.core.planning.reasons import Reason

PODS = [Pod(PodId("shop", name), {}, frozenset({IPv4Address(f"10.0.0.{i}")})) for i, name in enumerate("ab")]
LIMIT = Limit(Rate(10**7), exceed_action=ExceedAction.DELAY)
POLICY = Policy("shop", "web", Selector(frozenset()), {Direction.EGRESS: LIMIT})
KEPT = Slot(Owner(SlotKey(PODS[0].id, Direction.INGRESS), "old", 3), SlotConfig(bits_per_s=5))
POLICIES = (
    [],
    [POLICY],
    [replace(POLICY, generation=2)],
    [replace(POLICY, limits={Direction.EGRESS: replace(LIMIT, rate=Rate(10**6))})],
)
HOST_SIDE, POD_SIDE = frozenset({Interface(7)}), frozenset({Interface(2, namespace=9)})
INTERFACES = (
    PodInterfaces({End.HOST: HOST_SIDE, End.POD: POD_SIDE}),
    PodInterfaces({End.HOST: HOST_SIDE, End.POD: frozenset({Interface(3, namespace=9)})}),
    PodInterfaces(reason=Reason.NO_INTERFACE, message="pod: gone"),
)
ABILITIES = (Capabilities(), Capabilities(fq=False), Capabilities(data_plane=DataPlane(has_tcx=True)))


@dataclass(frozen=True)
class Situation:
    """All that the limits of a node depend on."""

    policies: list[Policy]
    interfaces: PodInterfaces
    capabilities: Capabilities
    mode: Mode
    kept: Mapping[PodId, Mapping[Direction, Slot]]

    def limits(self, memory: Memory) -> Desired:
        """Return the limits. Only the first pod has interfaces."""
        pods, settings = list(PODS), NodeSettings(self.mode, self.kept)
        return desired(self.policies, pods, self._locate, self.capabilities, settings, memory)

    def _locate(self, search: Search) -> PodInterfaces:
        return replace(self.interfaces) if search.pod == PODS[0].id else PodInterfaces()


PARTS = (
    POLICIES,
    INTERFACES,
    ABILITIES,
    (Mode.ENFORCE, Mode.OBSERVE),
    ({}, {PODS[0].id: {Direction.INGRESS: KEPT}}),
)
SITUATIONS = {
    choice: Situation(*(part[each] for part, each in zip(PARTS, choice, strict=True)))
    for choice in product(*(range(len(part)) for part in PARTS))
}


def test_limits_do_not_depend_on_the_previous_run() -> None:
    """Change everything that limits depend on, one part at a time."""
    for before, after in permutations(SITUATIONS, 2):
        if sum(map(operator.ne, before, after)) == 1:
            memory = Memory()
            SITUATIONS[before].limits(memory)
            assert SITUATIONS[after].limits(memory) == SITUATIONS[after].limits(Memory())


def test_a_run_computes_only_the_limits_of_pods_that_changed() -> None:
    """Reuse the value of the other pod."""
    memory = Memory()
    situation = Situation([POLICY], INTERFACES[0], ABILITIES[0], Mode.ENFORCE, {})
    before = situation.limits(memory)
    after = replace(situation, interfaces=INTERFACES[1]).limits(memory)
    changed, unchanged = (SlotKey(pod.id, Direction.EGRESS) for pod in PODS)
    assert after.wanted[unchanged] is before.wanted[unchanged]
    assert after.wanted[changed] != before.wanted[changed]
