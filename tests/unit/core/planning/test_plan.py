"""The plan turns the observed state into the desired state, and is then empty."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import DeviceId, Owner, Role, Slot, SlotConfig, SlotKey
from tokenbucket.core.planning.attachment import IFB, Hook, HookPoint, Interface
from tokenbucket.core.planning.plan import (
    Action,
    AddQueue,
    Attach,
    Attached,
    Detach,
    FreeSlot,
    Observed,
    RemoveQueue,
    Wanted,
    WriteSlot,
    plan,
)

SLOT_COUNT = 6


@dataclass
class Kernel:
    """The state that a plan changes. Rejects actions that leave traffic wrongly limited in between."""

    slots: dict[int, Slot] = field(default_factory=dict)
    filters: dict[HookPoint, Attached] = field(default_factory=dict)
    queues: set[Interface] = field(default_factory=set)
    remnants: set[Interface] = field(default_factory=set)

    def observed(self) -> Observed:
        """Return the observed state."""
        return Observed(
            dict(self.slots), dict(self.filters), SLOT_COUNT, set(self.queues), set(self.remnants)
        )

    def delaying(self) -> set[Interface]:
        """Return the interfaces where packets get departure times."""
        return {
            point.interface
            for point, attached in self.filters.items()
            if attached.slot in self.slots
            and point.hook is Hook.EGRESS
            and self.slots[attached.slot].config.max_delay_q
        }

    def apply(self, action: Action) -> None:
        """Execute one action."""
        match action:
            case WriteSlot(index, slot, fresh):
                assert fresh == (index not in self.slots), "only a free slot gets a full bucket"
                assert 0 < index < SLOT_COUNT
                self.slots[index] = slot
            case Attach(point, slot, redirects):
                assert slot in self.slots, "a filter must find its slot written"
                waits = self.slots[slot].config.max_delay_q and point.hook is Hook.EGRESS
                assert not waits or point.interface in self.queues, "what is to wait needs its queue"
                if redirects:
                    there = self.filters.get(at_ifb(point))
                    assert there and there.slot == slot, "no packet may pass the ifb device without a limit"
                self.filters[point] = Attached(slot, current=True, redirects=redirects)
            case Detach(point):
                slot = self.filters.pop(point).slot
                redirecting = {
                    at_ifb(each) for each, a in self.filters.items() if a.redirects and a.slot == slot
                }
                assert point not in redirecting, "no packet may pass the ifb device without a limit"
            case AddQueue(interface):
                self.queues.add(interface)
            case RemoveQueue(interface):
                assert interface not in self.delaying(), "what is to wait needs its queue"
                self.queues.discard(interface)
                self.remnants.discard(interface)
            case FreeSlot(index):
                assert index not in {attached.slot for attached in self.filters.values()}
                del self.slots[index]


keys = st.builds(
    SlotKey,
    st.builds(PodId, st.just("shop"), st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["", "1"])),
    st.sampled_from(Direction),
    st.sampled_from(Role),
)
device_keys = st.builds(SlotKey, st.builds(DeviceId, st.just(1), st.just("eth0")), st.sampled_from(Direction))
INODE = 4026532000
INTERFACES = [Interface(index, namespace) for namespace in (0, INODE) for index in (1, 2, 3)]
DEVICE = Interface(IFB, INODE)
points = st.builds(HookPoint, st.sampled_from(INTERFACES), st.sampled_from(Hook))
configs = st.builds(
    SlotConfig,
    bits_per_s=st.sampled_from([10**6, 10**7]),
    bytes_burst_q=st.just(1),
    max_delay_q=st.sampled_from([0, 10**9]),
)
pod_slots = st.builds(Slot, st.builds(Owner, keys, st.just("web"), st.integers(0, 2)), configs)
device_slots = st.builds(Slot, st.builds(Owner, device_keys), st.just(SlotConfig(bits_per_s=10**6)))
kernels = st.builds(
    Kernel,
    st.dictionaries(st.integers(1, SLOT_COUNT - 1), st.one_of(pod_slots, pod_slots, device_slots)),
    st.dictionaries(points, st.builds(Attached, st.integers(0, SLOT_COUNT), st.booleans())),
    st.sets(st.sampled_from([*INTERFACES, DEVICE])),
    st.sets(st.just(DEVICE)),
)


def at_ifb(point: HookPoint) -> HookPoint:
    """Return the hook of the ifb device in the namespace of a hook."""
    return HookPoint(Interface(IFB, point.interface.namespace), Hook.EGRESS)


@st.composite
def desires(draw: st.DrawFn) -> dict[SlotKey, Wanted]:
    """Generate limits that share no hook."""
    free = draw(st.permutations([HookPoint(each, hook) for each in INTERFACES for hook in Hook]))
    wanted, taken = {}, set[Interface]()
    for slot in draw(st.lists(pod_slots, max_size=4, unique_by=lambda slot: slot.owner.key)):
        delays = slot.config.max_delay_q > 0
        chosen = set(free[: draw(st.integers(0, 2))])
        free = [each for each in free if each not in chosen]
        if delays:  # where no queue is behind an ingress hook, the limit is at the ifb device too
            received = {each for each in chosen if each.hook is Hook.INGRESS}
            chosen -= {each for each in received if not each.interface.namespace or DEVICE in taken}
            if received & chosen:
                chosen.add(at_ifb(HookPoint(DEVICE, Hook.EGRESS)))
                taken.add(DEVICE)
        wanted[slot.owner.key] = Wanted(slot, frozenset(chosen), delays)
    return wanted


@given(desires(), desires())
def test_packets_are_never_redirected_past_a_limit(
    before: dict[SlotKey, Wanted], after: dict[SlotKey, Wanted]
) -> None:
    """Add, change and remove limits in a kernel that rejects such a redirection."""
    kernel = Kernel()
    for desired in (before, after, {}):
        for action in plan(desired, kernel.observed()).actions:
            kernel.apply(action)
    assert not kernel.filters and not kernel.queues


def of_devices(kernel: Kernel) -> tuple[dict[int, Slot], dict[HookPoint, Attached]]:
    """Generate slots of devices, which a plan changes only if a pod needs the same hook."""
    slots = {i: slot for i, slot in kernel.slots.items() if isinstance(slot.owner.key.subject, DeviceId)}
    return slots, {point: a for point, a in kernel.filters.items() if a.slot in slots}


@given(kernels, desires())
def test_a_plan_after_a_plan_is_empty(kernel: Kernel, desired: dict[SlotKey, Wanted]) -> None:
    """Start from any state, and apply one plan."""
    for _ in range(2):  # a limit that found no free slot gets one that this plan gives back
        for action in plan(desired, kernel.observed()).actions:
            kernel.apply(action)
    assert plan(desired, kernel.observed()).actions == ()


@given(kernels, desires())
def test_a_plan_enforces_every_limit_with_a_slot(kernel: Kernel, desired: dict[SlotKey, Wanted]) -> None:
    """Attach a filter with the slot of the limit to each desired hook, and to no other hook."""
    planned = plan(desired, kernel.observed())
    for action in planned.actions:
        kernel.apply(action)
    placed = {slot.owner.key: index for index, slot in kernel.slots.items()}
    expected = {
        point: Attached(placed[key], current=True, redirects=wanted.redirects(point))
        for key, wanted in desired.items()
        if key not in planned.without_slot
        for point in wanted.points
    }
    device_slots, _ = of_devices(kernel)
    found = {
        point: attached for point, attached in kernel.filters.items() if attached.slot not in device_slots
    }
    assert expected == found


@given(kernels, desires())
def test_limits_of_devices_stay(kernel: Kernel, desired: dict[SlotKey, Wanted]) -> None:
    """Change manual limits only if the limit of a pod needs the same hook."""
    slots_before, filters_before = of_devices(kernel)
    wanted = {point for limit in desired.values() for point in limit.points}
    for action in plan(desired, kernel.observed()).actions:
        kernel.apply(action)
    slots_after, filters_after = of_devices(kernel)
    assert slots_before == slots_after
    unwanted = filters_before.keys() - wanted
    assert {point: filters_before[point] for point in unwanted} == {
        point: attached for point, attached in filters_after.items() if point not in wanted
    }


@given(desires())
def test_a_limit_keeps_its_slot_if_everything_else_changes(desired: dict[SlotKey, Wanted]) -> None:
    """Keep tokens and counters, which belong to the slot."""
    kernel = Kernel()
    for action in plan(desired, kernel.observed()).actions:
        kernel.apply(action)
    before = {slot.owner.key: index for index, slot in kernel.slots.items()}
    changed = {
        key: Wanted(
            Slot(Owner(key, "other", 9), replace(wanted.slot.config, bits_per_s=5)),
            wanted.points,
            wanted.delays,
        )
        for key, wanted in desired.items()
    }
    actions = plan(changed, kernel.observed()).actions
    assert all(isinstance(action, WriteSlot) and not action.fresh for action in actions)
    assert {action.slot.owner.key: action.index for action in actions} == before


def test_limits_without_a_slot_are_named() -> None:
    """Report them instead of leaving them silently unlimited."""
    desired = {}
    for number in range(SLOT_COUNT + 1):
        key = SlotKey(PodId("shop", f"pod-{number}"), Direction.INGRESS)
        desired[key] = Wanted(Slot(Owner(key), SlotConfig()), frozenset())
    planned = plan(desired, Kernel().observed())
    assert [str(key) for key in planned.without_slot] == ["shop/pod-5 ingress", "shop/pod-6 ingress"]


def limits_and_guards(*names: str) -> dict[SlotKey, Wanted]:
    """Generate limits of pods, each with its guard."""
    limits = [SlotKey(PodId("shop", name), Direction.EGRESS) for name in names]
    keys = [key for limit in limits for key in (limit, limit.guard)]
    return {key: Wanted(Slot(Owner(key), SlotConfig()), frozenset()) for key in keys}


def test_guards_get_the_slots_that_limits_do_not_need() -> None:
    """Prefer a pod without a guard to a guard without a limit."""
    planned = plan(limits_and_guards("a", "b", "c"), Kernel().observed())
    assert [str(key) for key in planned.without_slot] == ["shop/c egress guard"]


def test_a_guard_gives_its_slot_to_a_limit_without_one() -> None:
    """Limit a new pod with the next plan on a node without free slots."""
    kernel = Kernel()
    for names in ("ab", "abc", "abc"):
        planned = plan(limits_and_guards(*names), kernel.observed())
        for action in planned.actions:
            kernel.apply(action)
    limits = [key for key in limits_and_guards(*"abc") if not key.is_guard]
    assert {slot.owner.key for slot in kernel.slots.values()} >= set(limits)
    assert len(kernel.slots) == SLOT_COUNT - 1


def test_a_guard_is_written_before_its_limit() -> None:
    """Keep the guard from dropping packets that the limit admits at a higher rate."""
    planned = plan(limits_and_guards("a", "b"), Kernel().observed())
    written = [action.slot.owner.key.is_guard for action in planned.actions]
    assert written == [True, True, False, False]
