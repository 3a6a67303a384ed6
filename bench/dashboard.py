"""The dashboard and the alerts of the chart, with data of a real agent in a real Prometheus.

``make dashboard`` limits the pods of the demo, evaluates each expression, and draws all panels to one
picture. It exits with 1 if an expression fails, or if a panel has no data.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
FILES = ROOT / "charts" / "tokenbucket" / "files"
METRICS, SERVER = "127.0.0.1:10475", "127.0.0.1:9090"
COLUMNS, INTERVAL_S = 24, 2
EITHER = (
    {"Delayed packets", "Mean delay of delayed packets"},
    {"Pods with limits not as declared", "Limits not as declared"},
)
"""Delay has data in the first panels on a kernel with fq, and in the others without."""
WITHOUT_DATA = {"Failed requests to the Kubernetes API"}


def demo() -> Any:
    """Return the module of the demo, which is a script."""
    folder = ROOT / "examples" / "demo"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("demo", folder / "__main__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def prometheus(program: Path) -> Iterator[None]:
    """Run a server that scrapes the agent and evaluates the alerts."""
    config = {
        "global": {"scrape_interval": f"{INTERVAL_S}s", "evaluation_interval": "5s"},
        "rule_files": [str(FILES / "alerts.yaml")],
        "scrape_configs": [{"job_name": "agent", "static_configs": [{"targets": [METRICS]}]}],
    }
    with tempfile.TemporaryDirectory(prefix="tokenbucket-dashboard-") as folder:
        (Path(folder) / "prometheus.yml").write_text(yaml.safe_dump(config))
        argv = [program, f"--web.listen-address={SERVER}", "--config.file=prometheus.yml"]
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen([*argv, "--storage.tsdb.path=data"], cwd=folder, stdout=log, stderr=log)
            try:
                yield
            finally:
                server.terminate()
                server.wait()


def ask(path: str, **query: object) -> Any:
    """Return the data of an answer of Prometheus. Raises RuntimeError with its error."""
    try:
        with urllib.request.urlopen(
            f"http://{SERVER}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        ) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["error"]) from error


def series(target: dict[str, str], seconds: float) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the lines of a panel, with their legends."""
    expression = target["expr"].replace("$__rate_interval", "15s").replace("$namespace", ".*")
    now = time.time()
    found = ask("query_range", query=expression, start=now - seconds, end=now, step=INTERVAL_S)["result"]
    return [
        (legend(target, each["metric"]), [(at, float(value)) for at, value in each["values"]])
        for each in found
    ]


def legend(target: dict[str, str], labels: dict[str, str]) -> str:
    """Return the legend as Grafana does."""
    text = target.get("legendFormat", "__auto")
    if text == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), text).strip()


def draw(panels: list[tuple[dict[str, Any], list[Any]]], file: Path) -> None:
    """Draw all panels at their places."""
    mpl.use("Agg")
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in panels)
    figure = plt.figure(figsize=(18, rows * 0.42), layout="constrained")
    grid = figure.add_gridspec(rows, COLUMNS)
    for panel, lines in panels:
        place = panel["gridPos"]
        cells = grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]]
        axes = figure.add_subplot(cells)
        axes.set_title(panel["title"], fontsize=9, loc="left")
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        if panel["type"] == "timeseries":
            _draw_lines(axes, lines, unit)
        else:
            values = [f"{name} {points[-1][1]:g}".strip() for name, points in lines]
            axes.text(0.02, 0.5, "\n".join(values) or "no data", fontsize=11, va="center")
            axes.set_axis_off()
    figure.savefig(file, dpi=70)


def _draw_lines(axes: Any, lines: list[Any], unit: str) -> None:
    for name, points in lines:
        axes.plot([at - points[-1][0] for at, _ in points], [value for _, value in points], label=name)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)
    if lines:
        axes.legend(fontsize=7, loc="upper left")
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")


def alerts() -> Iterator[str]:
    """Yield the rules that Prometheus could not evaluate."""
    for group in ask("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                yield f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}"


def check(seconds: float, file: Path) -> list[str]:
    """Return what fails, and draw the rest."""
    found, drawn = list(alerts()), []
    for panel in json.loads((FILES / "dashboard.json").read_text())["panels"]:
        lines = [line for target in panel["targets"] for line in series(target, seconds)]
        drawn.append((panel, lines))
        print(f"{panel['title']:45} {len(lines):3} series")
    draw(drawn, file)
    empty = {panel["title"] for panel, lines in drawn if not lines}
    allowed = WITHOUT_DATA | next((panels for panels in EITHER if panels <= empty), set())
    return found + [f"{title}: has no data" for title in sorted(empty - allowed)]


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", type=Path, default=Path("prometheus"), help="the program")
    parser.add_argument("--picture", type=Path, default=Path("dashboard.png"))
    parser.add_argument("--seconds", type=float, default=40)
    given = parser.parse_args()
    with demo().stage() as show, prometheus(given.prometheus):
        show.agent_options = ("--metrics-address", METRICS)
        policies = show.folder / "policy.yaml"
        delay = policies.read_text().rsplit("Drop", 1)
        policies.write_text("Delay".join(delay))
        show.start_load()
        show.start_agent()
        time.sleep(given.seconds)
        found = check(given.seconds, given.picture)
    print("\n".join(found) or "all expressions evaluate, and each panel that can have data has data")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
