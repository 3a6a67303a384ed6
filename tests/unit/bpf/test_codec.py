"""Values of the core, as the kernel's maps hold them."""

from __future__ import annotations

import pytest

from tokenbucket import layout
from tokenbucket.bpf.codec import decode_owner, encode_owner
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Owner, SlotKey

LIMIT = SlotKey(PodId("shop", "web", "uid"), Direction.EGRESS)


@pytest.mark.parametrize("key", [LIMIT, LIMIT.guard], ids=str)
def test_a_slot_says_whether_it_holds_a_limit_or_a_guard(key: SlotKey) -> None:
    """A restarted agent must not take one for the other."""
    assert decode_owner(bytes(encode_owner(Owner(key)))).key == key


def test_a_slot_of_an_agent_without_guards_holds_a_limit() -> None:
    """Such an agent leaves the byte zero, in the same layout version."""
    raw = encode_owner(Owner(LIMIT.guard))
    raw.role = 0
    assert decode_owner(bytes(raw)).key == LIMIT
    assert layout.Role.LIMIT == 0
