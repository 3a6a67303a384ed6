"""Print the explanation of a pod for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from tokenbucket.plugin.explain.cause import Cause
from tokenbucket.plugin.explain.codes import State
from tokenbucket.plugin.explain.explanation import Explanation, LimitView
from tokenbucket.plugin.explain.figures import figures
from tokenbucket.plugin.screen import plain, print_line, print_title
from tokenbucket.units import unix_time

STYLES = {
    State.ENFORCED: "green",
    State.NOT_LIMITED: "cyan",
    State.UNKNOWN: "yellow",
    State.PENDING: "yellow",
    State.DEVIATES: "red",
}
_NAMES = len("Next step  ")


def show(explanation: Explanation, console: Console, sources: Iterable[str], *, wide: bool) -> None:
    """Print everything that is known about the pod, the state first."""
    found = explanation.evidence
    where = f" on node {found.node_name}" if found.node_name else ""
    state = Text(explanation.state.value, f"bold {STYLES[explanation.state]}")
    console.print(Text(f"Pod {plain(found.pod.id)}{plain(where)}: ", "bold") + state)
    for each in explanation.causes:
        if each.state is not State.ENFORCED:
            _show_cause(each, console)
    print_title(console, "Limits")
    for limit in explanation.limits:
        _show_limit(limit, console)
    if not explanation.limits:
        print_line(console, "none")
    _show_ranks(explanation, console)
    _show_list(console, "Traffic of the source", sources)
    _show_node(explanation, console, wide=wide)
    for title, lines in figures(found):
        _show_list(console, title, lines)
    _show_list(console, "Missing rights", found.gaps)


def _show_cause(cause: Cause, console: Console) -> None:
    of_policy = f"(policy {cause.policy})" if cause.policy else ""
    concerns = " ".join(filter(None, (cause.direction, of_policy)))
    print_line(console, f"{cause.code}{f': {concerns}' if concerns else ''}", style=STYLES[cause.state])
    for name, text in (("Cause", cause.meaning), ("Detail", cause.detail), ("Next step", cause.fix)):
        if text:
            print_line(console, f"{name.ljust(_NAMES)}{text.replace('`', '')}", indent=4, hang=_NAMES)


def _show_limit(limit: LimitView, console: Console) -> None:
    name = limit.direction.ljust(_NAMES - 2)
    print_line(console, f"{name}{limit.limit}", hang=_NAMES - 2)
    rest = " " * (_NAMES - 2)
    print_line(console, f"{rest}{limit.state} (policy {limit.policy})", style=STYLES[limit.state])
    print_line(console, f"{rest}without policy {limit.policy}: {limit.if_deleted}", hang=_NAMES - 2)


def _show_ranks(explanation: Explanation, console: Console) -> None:
    if len(explanation.ranks) > 1 or any(each.why for each in explanation.ranks):
        print_title(console, "Policies that select the pod, by rank")
        for each in explanation.ranks:
            applies = f"applies to {' and '.join(each.wins)}" if each.wins else "does not apply"
            print_line(console, f"{each.name}: {'; '.join(filter(None, (applies, each.why)))}", hang=2)


def _show_node(explanation: Explanation, console: Console, *, wide: bool) -> None:
    found = explanation.evidence
    if not found.report:
        return
    report = found.report.report
    age = f"{max(0, found.now - unix_time(report.sync.last)):.0f} s ago" if report.sync.last else "unknown"
    mode = report.enforcement or "unknown"
    print_title(console, f"Node {found.node_name}")
    print_line(console, f"agent {report.agent.version} (pod {report.agent.pod}), last report {age}")
    print_line(
        console, f"enforcement {mode}, kernel {report.kernel}, {'with' if report.fq else 'without'} fq"
    )
    if report.problem:
        print_line(console, f"problem: {report.problem}", hang=2)
    if wide or found.live is None:
        places = ", ".join(f"{count} {place}" for place, count in sorted(report.attachments.items()))
        print_line(console, f"attachments of all pods: {places or 'none'}", hang=2)
        for program in report.foreign_programs:
            print_line(console, f"foreign program: {program}", hang=2)


def _show_list(console: Console, title: str, lines: Iterable[str]) -> None:
    lines = list(lines)
    if lines:
        print_title(console, title)
    for line in lines:
        print_line(console, line, hang=2)
