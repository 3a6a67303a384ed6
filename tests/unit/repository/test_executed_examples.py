"""Each example of the documentation runs in a test, or has a listed reason not to."""

from __future__ import annotations

import pytest

from tests.documentation.blocks import ROOT, Block, blocks
from tests.documentation.coverage import (
    GETTING_STARTED,
    NOT_RUN,
    ON_MACHINE,
    REPEATS,
    on_cluster,
    reason_not_to_run,
    reason_to_show,
)
from tests.documentation.examples import Place, examples, runs
from tests.documentation.sessions import commands_of, missing_lines

RUN = {place for place, _ in on_cluster()} | ON_MACHINE | REPEATS.keys()
CASES = {str(place) + place.page: (place, found) for place, found in examples()}

SESSION = """\
$ kubectl get tbp
NAME   INGRESS    READY   AGE
web    10Mbit/s   True    6m37s
$ kubectl get tbp backend
"""


@pytest.mark.parametrize("name", CASES)
def test_each_block_runs_or_has_a_reason(name: str) -> None:
    """The reason is that of the example, or of the blocks of a page that are no commands."""
    place, found = CASES[name]
    ways = [place in RUN, place.page == GETTING_STARTED, reason_not_to_run(place) is not None]
    if any(map(runs, found)):
        assert sum(ways) == 1, "run it on one rung, or list the reason in tests/documentation/coverage.py"
    if not all(map(runs, found)):
        assert reason_to_show(place.page) or reason_not_to_run(place)


def test_each_entry_of_the_lists_is_of_an_example() -> None:
    """Find entries of sections that were renamed or removed."""
    places = [place for place, found in examples() if any(map(runs, found))]
    assert places
    assert set(places) >= RUN
    for entry in NOT_RUN:
        assert any(NOT_RUN[entry] == reason_not_to_run(place) for place in places), entry


@pytest.mark.parametrize("place", REPEATS, ids=str)
def test_a_repeated_example_has_only_commands_of_the_page_that_runs(place: Place) -> None:
    other = {line for block in blocks((ROOT / REPEATS[place]).read_text()) for line in block.text.split("\n")}
    repeated = [line for each, found in examples() if each == place for line in _commands(found)]
    assert repeated
    assert [line for line in repeated if line not in other] == []


def _commands(found: list[Block]) -> list[str]:
    return [line for block in found if block.language == "sh" for line in block.text.split("\n")]


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        ("NAME INGRESS READY AGE\nweb 10Mbit/s True 2s", []),
        ("NAME INGRESS READY AGE\nother 5Mbit/s True 9s\nweb 10Mbit/s True 3h", []),
        ("NAME INGRESS READY AGE\nweb 20Mbit/s True 2s", ["web 10Mbit/s True AGE"]),
        ("NAME INGRESS READY AGE\nweb 10Mbit/s False 2s", ["web 10Mbit/s True AGE"]),
        ("", ["NAME INGRESS READY AGE", "web 10Mbit/s True AGE"]),
    ],
)
def test_a_session_is_compared_without_the_parts_that_vary(printed: str, missing: list[str]) -> None:
    table, silent = commands_of(SESSION)
    assert missing_lines(table, printed) == missing
    assert missing_lines(silent, "") == []


def test_lines_in_another_order_are_missing() -> None:
    [session] = commands_of("$ tokenbucket status\nfirst\nsecond")
    assert missing_lines(session, "second\nfirst") == ["second"]
