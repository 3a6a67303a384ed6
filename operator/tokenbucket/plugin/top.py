"""Define ``kubectl tokenbucket top``, which shows rates, shares and losses of limited pods."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenbucket.plugin.background import started
from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import LiveClient, add_service_option, find_service
from tokenbucket.plugin.options import Output, within
from tokenbucket.plugin.resources import PODS
from tokenbucket.plugin.top_rows import History, Row, Sort, ordered

if TYPE_CHECKING:
    from tokenbucket.plugin.connection import Connection
    from tokenbucket.plugin.top_screen import View

Document = dict[str, Any]
_FIRST_S = 0.3
"""Time between the first two readings."""
_FIRST_ANSWERS_S = 0.6
"""Time for which a live screen awaits the first answers. A slow node must not delay the others."""
_ONCE_S = 10.0
"""Time for which answers are awaited with --once."""
_LIST_S = 5.0
"""Interval of lists of pods."""
_ANSWER_S = 0.9
"""Share of an interval for which answers are awaited."""
_ENDED = {"Succeeded", "Failed"}


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "show rates, shares of the limits, delays and losses of pods, each second"
    command = commands.add_parser("top", help=text, description=text, parents=[shared])
    command.add_argument(
        "--sort", type=Sort, choices=list(Sort), default=Sort.USED, metavar="FIGURE",
        help="order: used (default), rate, wait, delayed, dropped, marked or name",
    )  # fmt: skip
    command.add_argument("--policy", metavar="NAME", help="only pods that this policy limits")
    command.add_argument("--node", metavar="NAME", help="only pods on this node")
    command.add_argument(
        "--only-limited", action="store_true",
        help="only limits with an effect, a share of at least 90 percent, or a problem",
    )  # fmt: skip
    command.add_argument("--once", action="store_true", help="print once, without a live screen")
    command.add_argument(
        "--interval", type=within(0.5, 3600), default=1.0, metavar="SECONDS",
        help="time between two screens; with --once, duration of the measurement (default 1)",
    )  # fmt: skip
    add_service_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Show the limits until Ctrl-C, or once."""
    from tokenbucket.plugin.connection import connect

    connection = connect(options)
    service = started(lambda: find_service(options.live_service, connection))
    watcher = Watcher(connection, service, options)
    watcher.start_list()
    from tokenbucket.plugin import top_screen  # noqa: F401 - takes as long as the requests

    if options.output.is_structured or options.once:
        return _print(watcher, options)
    return _show(watcher, options)


@dataclass(slots=True)
class Watcher:
    """Reads pods and figures again and again."""

    connection: Connection
    service: Future[tuple[str, str]]
    options: argparse.Namespace
    history: History = field(default_factory=History)
    silent: dict[str, str] = field(default_factory=dict)
    list_problem: str = ""
    """Why the last list of pods failed. The one before it is then used."""
    _uids: dict[str, set[str]] = field(default_factory=dict)
    """The uids of the pods by node."""
    _is_listed: bool = False
    _client: LiveClient | None = None
    _listing: Future[list[Document]] | None = None
    _listed_at: float = float("-inf")

    def read(self, timeout_s: float | None = None) -> list[Row]:
        """Return the selected rows. Raises PluginError."""
        self._use_list()
        self._client = self._client or LiveClient(self.connection, self.service.result())
        figures = self._client.fetch(self._uids, timeout_s, minute=not self.history.is_known)
        self.silent = dict(figures.silent)
        rows = self.history.rows(figures.pods.values())
        return ordered(filter(self._is_wanted, rows), self.options.sort)

    def start_list(self) -> None:
        """Start to list the pods."""
        options, self._listed_at = self.options, time.monotonic()
        node = f"spec.nodeName={options.node}" if options.node else ""
        selectors = {"labelSelector": options.selector, "fieldSelector": node}
        self._listing = started(lambda: self.connection.list(PODS, self.namespace, **selectors))

    def _use_list(self) -> None:
        """Use a list that is complete. Wait only for the first one. Raises its error."""
        if not self._listing and time.monotonic() - self._listed_at >= _LIST_S:
            self.start_list()
        if not self._listing or not (self._listing.done() or not self._is_listed):
            return
        listing, self._listing = self._listing, None
        try:
            pods = listing.result()
        except PluginError as error:
            if not self._is_listed:
                raise
            self.list_problem = str(error)
            return
        self.list_problem, self._is_listed = "", True
        self._uids = _uids_by_node(pods)
        self.history.forget_others(set().union(*self._uids.values()))

    def _is_wanted(self, row: Row) -> bool:
        if self.options.policy and row.policy != self.options.policy:
            return False
        return row.is_limited or not self.options.only_limited

    @property
    def namespace(self) -> str:
        """Return the namespace, or an empty text for all."""
        return "" if self.options.all_namespaces else self.connection.namespace

    @property
    def nodes(self) -> int:
        """Return the number of nodes with selected pods."""
        return len(self._uids)

    def readings(self) -> Iterator[list[Row]]:
        """Yield the rows of each interval, for a live screen at first with the rates of the last minute."""
        interval_s = self.options.interval
        rows = self.read(_ONCE_S if self.options.once else _FIRST_ANSWERS_S)
        if not (self.options.once or self.options.output.is_structured):
            yield rows
        time.sleep(interval_s if self.options.once else min(_FIRST_S, interval_s))
        while True:
            due = time.monotonic() + interval_s
            yield self.read(_ONCE_S if self.options.once else interval_s * _ANSWER_S)
            time.sleep(max(0.0, due - time.monotonic()))

    @property
    def exit_code(self) -> PluginExit:
        """Return whether the last screen is complete."""
        return PluginExit.UNKNOWN if self.silent or self.list_problem else PluginExit.DONE

    def view(self, rows: list[Row]) -> View:
        """Return what the screen shows."""
        from tokenbucket.core.status.summary import in_number
        from tokenbucket.plugin.top_screen import View, scaled

        bits = sum(row.rates.bits for row in rows if row.rates)
        where = f"namespace {self.namespace}" if self.namespace else "all namespaces"
        limits = in_number(len(rows), "limit")
        answered, nodes = self.nodes - len(self.silent), in_number(self.nodes, "node")
        title = f"{where}: {limits}, {scaled(bits)}bit/s, {answered} of {nodes} answered"
        if not self.nodes:
            title = f"{where}: no pod on a node, with these options"
        if self.list_problem:
            title += f"; the list of pods is outdated: {self.list_problem}"
        return View(rows, title, self.silent, not self.namespace, self.options.output is Output.WIDE)


def _uids_by_node(pods: Iterable[Document]) -> dict[str, set[str]]:
    """Return the uids of the pods that run or start."""
    found: dict[str, set[str]] = defaultdict(set)
    for pod in pods:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        if spec.get("nodeName") and status.get("phase") not in _ENDED:
            found[spec["nodeName"]].add(pod["metadata"]["uid"])
    return dict(found)


def _print(watcher: Watcher, options: argparse.Namespace) -> PluginExit:
    """Print all readings until Ctrl-C, or the first."""
    from tokenbucket.plugin.screen import console
    from tokenbucket.plugin.top_screen import screen

    with contextlib.suppress(*[] if options.once else [KeyboardInterrupt]):
        for rows in watcher.readings():
            if options.output.is_structured:
                _print_lines(watcher, rows, options.output)
            else:
                out = console(options)
                out.print(screen(watcher.view(rows), out.width))
            if options.once:
                break
    return watcher.exit_code


def _print_lines(watcher: Watcher, rows: list[Row], output: Output) -> None:
    """Print one document per limit, and one per node without an answer: JSON lines, or documents of YAML."""
    import yaml

    now = round(time.time(), 3)
    documents = [{"time": now, **row.to_document()} for row in rows]
    documents += [{"time": now, "node": node, "problem": text} for node, text in watcher.silent.items()]
    documents += [{"time": now, "problem": watcher.list_problem}] if watcher.list_problem else []
    for document in documents:
        text = (
            json.dumps(document)
            if output is Output.JSON
            else f"---\n{yaml.safe_dump(document, sort_keys=False)}"
        )
        print(text, flush=True)


def _show(watcher: Watcher, options: argparse.Namespace) -> PluginExit:
    """Show a live screen until Ctrl-C. The terminal is then as before, with the last screen."""
    from rich.live import Live

    from tokenbucket.plugin.screen import console
    from tokenbucket.plugin.top_screen import screen

    out = console(options)
    if not out.is_terminal:
        options.once = True
        return _print(watcher, options)
    view = None
    try:
        readings = watcher.readings()
        rows = next(readings)
        with Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                view = watcher.view(rows)
                live.update(screen(view, out.width, out.height), refresh=True)
                rows = next(readings)
    except KeyboardInterrupt:
        if view:
            out.print(screen(view, out.width, out.height))
        return watcher.exit_code
