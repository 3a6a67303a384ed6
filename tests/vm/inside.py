"""Plugin of the pytest that runs inside a machine, where all is some thirty times slower.

It leaves out the tests that no kernel has a part in, or that a slow machine makes meaningless. With
``--short`` it leaves out more: of the bpf rung what loads several times, and of the netns rung all but what
packets and queues do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LEFT_OUT = (
    # Of the compiler and of arithmetic.
    "tests/bpf/test_layout.py::",
    "tests/bpf/test_exactness.py::test_admitted_total_is_the_exact_one_within_a_thousandth",
    # Each compiles again, for 10 s and more, and shows no more of a kernel than the tests beside it.
    "tests/bpf/test_load.py::test_a_refused_program_is_one_readable_error[compiler]",
    "tests/bpf/test_load.py::test_a_pin_that_is_not_our_map_is_refused",
    "tests/bpf/test_load.py::test_loading_twice_loads_once",
    "tests/bpf/test_load.py::test_nothing_is_kept_of_a_load_that_failed_at_once",
    "tests/bpf/test_layout_upgrade.py::test_the_other_version_goes_when_nothing_runs_it",
    "tests/bpf/test_layout_upgrade.py::test_an_incomplete_version_is_left_aside",
    "tests/bpf/test_stock_tools.py::test_clangs_program_passes_the_reference_vectors",
    # The machine has one processor.
    "tests/bpf/test_acceptance.py::test_cpus_do_not_multiply_the_burst",
    # Of the command line, and of ways to other namespaces.
    "tests/netns/test_devices.py::",
    "tests/netns/test_connection.py::",
    # Whether these kernels count, for the pod, what is handed over past its veth has not been tried.
    "tests/netns/test_bypass.py::",
    # Most follow the agent, which needs no kernel, or count tokens by the clock.
    "tests/netns/test_agent.py::",
    "tests/netns/test_interfaces.py::",
)
"""How the ids of the tests begin."""

KEPT = (
    "tests/netns/test_agent.py::test_a_pod_receives_its_burst_to_the_packet[10.2.1.2/24-ptp]",
    "tests/netns/test_agent.py::test_a_pod_receives_its_burst_to_the_packet[fd02::2/64-bridge]",
    "tests/netns/test_agent.py::test_egress_is_limited_at_the_other_hook",
    "tests/netns/test_agent.py::test_detach_all_leaves_nothing_of_ours_and_all_of_others",
    "tests/netns/test_interfaces.py::test_an_interface_that_comes_later_is_limited[10.8.0.3/24]",
    *(
        f"tests/netns/test_interfaces.py::test_the_interfaces_of_a_pod_share_its_limit[{kind}-{direction}-auto]"
        for kind in ("ipvlan", "netkit")
        for direction in ("ingress", "egress")
    ),
)
"""All the same."""


LONG = (
    "tests/bpf/test_changes.py::",
    "tests/bpf/test_layout_upgrade.py::",
    "tests/bpf/test_load.py::test_a_refused_program_is_one_readable_error",
    "tests/bpf/test_load.py::test_another_build_takes_over_the_maps",
    # Of arithmetic, which one kernel shows: the machine's own.
    "tests/bpf/test_exactness.py::",
    "tests/bpf/test_delay.py::test_bulk_is_dropped_by_chance_from_half_of_the_longest_delay_on",
    "tests/bpf/test_delay.py::test_every_departure_is_the_models",
    "tests/bpf/test_peers.py::test_what_is_charged_is_what_was_let_through",
    # Compiles the program again.
    "tests/bpf/test_peers.py::test_a_map_that_refuses_entries_never_means_unlimited",
    "tests/bpf/test_peers.py::test_cpus_do_not_multiply_a_peers_burst",
    "tests/bpf/test_peers.py::test_forged_addresses_get_no_more_than_the_pod_has",
    "tests/bpf/test_peers.py::test_the_map_forgets_who_was_not_there_for_long",
)
SHORT = (
    "tests/bpf/",
    # Each of these starts an agent, which takes most of a minute.
    "tests/netns/test_agent.py::test_a_pod_receives_its_burst_to_the_packet[fd02::2/64-bridge]",
    "tests/netns/test_agent.py::test_detach_all_leaves_nothing_of_ours_and_all_of_others",
    "tests/netns/test_attachment.py::test_a_limit_moves_to_another_mechanism[clsact-tcx]",
    "tests/netns/test_attachment.py::test_a_newer_filter_of_the_same_priority_is_overtaken[egress]",
    "tests/netns/test_delay.py::test_small_packets_do_not_wait_behind_large_ones",
    "tests/netns/test_delay_of_what_pods_send.py::test_the_sender_waits_and_nothing_is_lost",
    "tests/netns/test_round_trip.py::",
    "tests/netns/test_filters.py::test_program_sees_its_slot",
    "tests/netns/test_filters.py::test_ours_runs_before_others",
    "tests/netns/test_monitor.py::test_removal_of_",
    "tests/netns/test_view.py::test_pod_is_found_by_each_of_its_addresses",
)
"""With ``--short``: these, but for the long ones."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="what a kernel is likeliest to do otherwise")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ids = [item.nodeid for item in items]
    folders = {_folder(name) for name in ids}
    listed = [name for name in (*LEFT_OUT, *LONG, *SHORT) if _folder(name) in folders]
    stale = [begin for begin in listed if not any(name.startswith(begin) for name in ids)]
    if stale:
        raise pytest.UsageError(f"{__file__}: no such tests: {', '.join(stale)}")
    short = config.getoption("--short")
    left_out = [item for item in items if _is_left_out(item.nodeid, short=short)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(name: str, *, short: bool) -> bool:
    if short and (name.startswith(LONG) or not name.startswith(SHORT)):
        return True
    return name.startswith(LEFT_OUT) and name not in KEPT


def _folder(name: str) -> str:
    return str(Path(name.split("::", maxsplit=1)[0]).parent)
