"""Select the tests that run inside a machine, which is about thirty times slower than the host.

This pytest plugin omits tests that do not depend on the kernel, and tests that need a fast machine. With
``--short``, it selects one test for each kernel feature that the project uses.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LEFT_OUT = (
    # Tests of the compiler and of arithmetic.
    "tests/bpf/test_layout.py::",
    "tests/bpf/test_exactness.py::test_admitted_total_is_the_exact_one_within_a_thousandth",
    # Each test compiles again, for 10 s or more, and covers no more of a kernel than the other tests.
    "tests/bpf/test_load.py::test_a_rejected_program_is_reported_in_one_line[compiler]",
    "tests/bpf/test_load.py::test_a_pin_of_another_map_is_rejected",
    "tests/bpf/test_load.py::test_loading_twice_loads_once",
    "tests/bpf/test_load.py::test_a_failed_load_leaves_nothing",
    "tests/bpf/test_layout_upgrade.py::test_an_unused_layout_version_is_removed",
    "tests/bpf/test_layout_upgrade.py::test_an_incomplete_layout_version_is_ignored",
    "tests/bpf/test_stock_tools.py::test_clangs_program_passes_the_reference_vectors",
    # The machine has one processor.
    "tests/bpf/test_acceptance.py::test_cpus_do_not_multiply_the_burst",
    # Tests of the command line, and of connections to other namespaces.
    "tests/netns/test_devices.py::",
    "tests/netns/test_connection.py::",
    # Not tested: whether these kernels count packets that are redirected past the veth of a pod.
    "tests/netns/test_bypass.py::",
    # Most of these tests check the agent, which does not depend on the kernel, or count tokens by the clock.
    "tests/netns/test_agent.py::",
    "tests/netns/test_interfaces.py::",
)
"""Prefixes of test ids."""

KEPT = (
    "tests/netns/test_agent.py::test_a_pod_receives_its_burst_to_the_packet[10.2.1.2/24-ptp]",
    "tests/netns/test_agent.py::test_a_pod_receives_its_burst_to_the_packet[fd02::2/64-bridge]",
    "tests/netns/test_agent.py::test_egress_is_limited_at_the_other_hook",
    "tests/netns/test_agent.py::test_detach_all_removes_only_objects_of_tokenbucket",
    "tests/netns/test_interfaces.py::test_an_interface_that_comes_later_is_limited[10.8.0.3/24]",
    *(
        f"tests/netns/test_interfaces.py::test_the_interfaces_of_a_pod_share_its_limit[{kind}-{direction}-auto]"
        for kind in ("ipvlan", "netkit")
        for direction in ("ingress", "egress")
    ),
)
"""Exceptions from ``LEFT_OUT``."""

SHORT = (
    "tests/bpf/test_acceptance.py::test_burst_from_idle_is_exactly_the_declared_one",
    "tests/bpf/test_acceptance.py::test_limited_from_the_first_instant_after_boot",
    "tests/bpf/test_acceptance.py::test_steady_overload_passes_the_known_indexes",
    "tests/bpf/test_delay.py::test_ecn_capable_packets_are_marked_on_congestion",
    "tests/bpf/test_delay.py::test_ipv4_checksums_stay_right",
    "tests/bpf/test_delay.py::test_packets_depart_at_the_rate_exactly",
    "tests/bpf/test_delay.py::test_pacing_stays_if_the_queue_stays_bounded",
    "tests/bpf/test_delay.py::test_the_shipped_entry_point_gives_times_of_the_monotonic_clock",
    "tests/bpf/test_delay.py::test_packets_other_than_ip_are_not_delayed",
    "tests/bpf/test_fair.py::test_every_departure_matches_exact_arithmetic",
    "tests/bpf/test_load.py::test_a_build_without_the_map_of_flows_is_upgraded_and_read",
    "tests/bpf/test_mark.py::test_only_the_code_point_changes",
    "tests/bpf/test_packets.py::test_both_hooks_charge_a_gso_packet_the_same",
    "tests/bpf/test_packets.py::test_packets_of_the_node_are_recognized_by_source_inside_a_pod",
    "tests/bpf/test_packets.py::test_neighbor_discovery_survives_a_flood",
    "tests/bpf/test_packets.py::test_the_program_runs_on_truncated_packets",
    "tests/bpf/test_peers.py::test_entries_name_the_prefixes_of_peers",
    "tests/bpf/test_peers.py::test_peers_are_independent",
    "tests/bpf/test_stock_tools.py::test_stock_tc_loads_the_shipped_object",
    "tests/bpf/test_verifier.py::",
    "tests/bpf/test_wire_sizes.py::test_unknown_headers_count_in_full",
    # Each of these tests compiles the program for an agent, which takes two minutes of CPU time.
    "tests/netns/test_attachment.py::test_a_limit_moves_to_another_mechanism[clsact-tcx]",
    "tests/netns/test_delay.py::test_small_packets_do_not_wait_behind_large_ones",
    "tests/netns/test_delay_inside_pods.py::test_the_sender_waits_and_nothing_is_lost",
    "tests/netns/test_filters.py::test_program_sees_its_slot",
    "tests/netns/test_filters.py::test_the_filter_runs_before_others",
    "tests/netns/test_monitor.py::test_removal_of_",
    "tests/netns/test_view.py::test_pod_is_found_by_each_of_its_addresses",
)
"""The tests with ``--short``: the verifier, the JIT, and each helper, qdisc and netlink message once.

The arithmetic of the program is the same on each kernel.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="one test for each part of the kernel")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ids = [item.nodeid for item in items]
    folders = {_folder(name) for name in ids}
    listed = [name for name in (*LEFT_OUT, *SHORT) if _folder(name) in folders]
    stale = [begin for begin in listed if not any(name.startswith(begin) for name in ids)]
    if stale:
        raise pytest.UsageError(f"{__file__}: no such tests: {', '.join(stale)}")
    short = config.getoption("--short")
    left_out = [item for item in items if _is_left_out(item.nodeid, short=short)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(name: str, *, short: bool) -> bool:
    if short and not name.startswith(SHORT):
        return True
    return name.startswith(LEFT_OUT) and name not in KEPT


def _folder(name: str) -> str:
    return str(Path(name.split("::", maxsplit=1)[0]).parent)
