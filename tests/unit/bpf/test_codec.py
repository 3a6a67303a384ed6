"""Conversion between values of the core and the kernel's maps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket import layout
from tokenbucket.bpf.codec import decode_config, decode_owner, encode_config, encode_owner
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Owner, PeerConfig, SlotConfig, SlotKey
from tokenbucket.core.planning.attachment import IFB

LIMIT = SlotKey(PodId("shop", "web", "uid"), Direction.EGRESS)


@pytest.mark.parametrize("key", [LIMIT, LIMIT.guard], ids=str)
def test_a_slot_records_whether_it_has_a_limit_or_a_guard(key: SlotKey) -> None:
    """Keep a restarted agent from confusing them."""
    assert decode_owner(bytes(encode_owner(Owner(key)))).key == key


def test_a_slot_of_an_agent_without_guards_has_a_limit() -> None:
    """Read the zero byte that such an agent leaves in the same layout version."""
    raw = encode_owner(Owner(LIMIT.guard))
    raw.role = 0
    assert decode_owner(bytes(raw)).key == LIMIT
    assert layout.Role.LIMIT == 0


RATES = st.integers(1, 10**12)
TIMES_Q = st.integers(0, 2**53)
METERS = {
    "bits_per_s": RATES,
    "bytes_burst_q": TIMES_Q,
    "packets_per_s": RATES,
    "packets_burst_q": TIMES_Q,
}
PEERS = st.builds(
    PeerConfig,
    **METERS,
    ipv4_prefix_length=st.integers(1, 32),
    ipv6_prefix_length=st.integers(1, 128),
    is_destination=st.booleans(),
)
CONFIGS = st.builds(
    SlotConfig,
    **METERS,
    reserve_bits_per_s=st.integers(1, 10**6),
    reserve_burst_q=TIMES_Q,
    dscp=st.none() | st.integers(0, 63),
    max_delay_q=TIMES_Q,
    longest_backlog_q=TIMES_Q,
    pacing=st.booleans(),
    observe=st.booleans(),
    observe_by_mode=st.booleans(),
    node_reserve=st.booleans(),
    per_peer=st.none() | PEERS,
)


@given(CONFIGS)
def test_a_configuration_survives_a_round_trip(config: SlotConfig) -> None:
    """Convert each field, with and without its flag."""
    assert decode_config(bytes(encode_config(config))) == config


def test_a_configuration_of_an_earlier_build_has_a_fifo_queue() -> None:
    """Read the zero word that such a build leaves in the same layout version."""
    fair = SlotConfig(bits_per_s=10**6, bytes_burst_q=1, max_delay_q=2, longest_backlog_q=3)
    raw = encode_config(fair)
    assert decode_config(bytes(raw)) == fair
    raw.longest_backlog_q = 0
    assert decode_config(bytes(raw)).longest_backlog_q == 0


def test_the_program_knows_the_index_of_the_ifb_device() -> None:
    """Let it find packets of the node there by their source address."""
    assert layout.IFB == IFB
