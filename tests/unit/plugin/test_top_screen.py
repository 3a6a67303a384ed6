"""Each set of columns fits its screen, with names and states that a reader can tell apart."""

from __future__ import annotations

import io
from itertools import product

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tokenbucket.plugin.rates import Rates
from tokenbucket.plugin.top_rows import Row
from tokenbucket.plugin.top_screen import View, scaled, screen

LONG = "a-long-deployment-name-5d8f7c6b9-abcd"
SETS = [
    frozenset(
        name for name, is_on in zip(("observes", "deviates", "marks", "trend"), bits, strict=True) if is_on
    )
    for bits in product([False, True], repeat=4)
]


def rows(kinds: frozenset[str]) -> list[Row]:
    """Return three rows with the longest figures, of which the second one observes and the third deviates."""
    shares = {"delayed": 0.1234, "dropped": 0.0123}
    figures = [
        Rates(9.99e11, 1e9, 9.99e8, 9.99e8, 9.99e8 if "marks" in kinds else 0.0, 0.0, 0.0999, 1.0, would)
        for would in ({}, shares if "observes" in kinds else {}, {})
    ]
    states = [
        "ok",
        "Observe" if "observes" in kinds else "ok",
        "NoGuard,NoQueueInPod" if "deviates" in kinds else "ok",
    ]
    history = (0.5,) * 32 if "trend" in kinds else ()
    return [
        Row(
            f"a-long-namespace-{number}", f"{LONG}{number}", f"ip-10-0-0-{number}.eu-west-1.compute.internal",
            "ingress", f"a-long-policy-name-{number}", state, "degraded" if "," in state else "", "Delay",
            "10Mbit/s, burst 62.5kB, Delay 100ms", "clsact/egress,guard", rates, history,
        )
        for number, (state, rates) in enumerate(zip(states, figures, strict=True))
    ]  # fmt: skip


def shown(view: View, width: int, height: int | None = None, *, color: bool = False) -> list[str]:
    """Return the lines of a screen as a terminal shows them."""
    file = io.StringIO()
    system = "truecolor" if color else None
    out = Console(file=file, width=width, color_system=system, force_terminal=color, highlight=False)  # type: ignore[arg-type]
    out.print(screen(view, width, height))
    assert ("\x1b" in file.getvalue()) == color
    return Text.from_ansi(file.getvalue()).plain.splitlines()


@pytest.mark.parametrize("width", [34, 60, 80, 120, 200])
@pytest.mark.parametrize("kinds", SETS, ids=lambda kinds: "-".join(sorted(kinds)) or "plain")
def test_each_set_of_columns_fits(kinds: frozenset[str], width: int) -> None:
    """Show each pod in one line, with the end of its name, and each state with its start."""
    for color, wide, with_namespace in product([False, True], repeat=3):
        view = View(rows(kinds), "title", {}, with_namespace, wide)
        lines = shown(view, width, color=color)
        assert len(lines) == 3 + len(view.rows)
        assert max(map(cell_len, lines)) <= width
        for row, line in zip(view.rows, lines[3:], strict=True):
            assert row.pod[-5:] in line
            assert row.state[:9] in line or "STATE" not in lines[2]
        assert "STATE" in lines[2] or not kinds & {"observes", "deviates"}


@pytest.mark.parametrize("width", [80, 119])
def test_a_dry_run_has_one_share_on_a_narrow_screen(width: int) -> None:
    """Show the loss instead of the delay, and both on a wide screen."""
    view = View(rows(SETS[-1]), "title", {})
    assert [word in shown(view, width)[4] for word in ("drop 1.23%", "delay")] == [True, False]
    assert "delay 12.3 %, drop 1.23 %" in shown(view, 200)[4]


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("count", [1, 2, 100])
def test_nodes_without_an_answer_leave_room_for_the_rows(count: int, width: int) -> None:
    """Combine equal problems, cut long ones, and count the others."""
    problem = "its agent does not answer: Connection refused; " + 10 * "check the pod of the agent "
    silent = {f"node-{number}": problem for number in range(count)}
    whole = " ".join(shown(View(rows(SETS[-1]), "title", silent), width)).split()
    assert problem.strip() in " ".join(whole)
    [line] = shown(View(rows(SETS[-1]), "title", silent), width, 24)[6:]
    assert line.startswith("node node-0: its agent" if count == 1 else "nodes node-0, node-1")
    assert cell_len(line) <= width
    different = {node: f"problem of {node}" for node in silent}
    lines = shown(View(100 * rows(SETS[-1]), 50 * "title ", different), width, 24)
    assert len(lines) <= 24
    assert sum(LONG[-3:] in each for each in lines) >= 10
    named = sum("problem of" in each for each in lines)
    assert named == count or f"{count - named} further nodes: no answer" in lines[-1]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.25, "0.2"), (1.0, "1"), (999.6, "1k"), (1.25e7, "12.5M"), (2e9, "2G")]
)
def test_a_figure_has_three_digits_and_a_suffix(value: float, text: str) -> None:
    assert scaled(value) == text
