"""Metrics, and their use by PodMonitor, alerts and dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.chart import ROOT, Chart, ChartError, Document, Manifests
from tests.chart.promtool import promtool
from tokenbucket.agent.metrics import OF_THE_AGENT, OF_THE_PODS
from tokenbucket.agent.policy_metrics import OF_THE_POLICIES
from tokenbucket.cli import parser
from tokenbucket.controller.metrics import OF_THE_CONTROLLER
from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.metrics import Kind

HERE = Path(__file__).parent
MEASURES = (*OF_THE_AGENT, *OF_THE_PODS, *OF_THE_POLICIES, *OF_THE_CONTROLLER)
SERVED = {each.name: set(each.labels) for each in MEASURES if each.kind is not Kind.HISTOGRAM}
SERVED |= {f"{each.name}_bucket": {"le"} for each in MEASURES if each.kind is Kind.HISTOGRAM}
AGENT_METRICS = {each.name for each in OF_THE_AGENT}
OF_TARGETS = {"instance", "node", "job"}
KINDS = ("PodMonitor", "PrometheusRule")
METRIC = re.compile(r"\b(tokenbucket_\w+)(?:\{([^}]*)\})?")
AGENT = {"agent": {"metrics": {"enabled": True}}}
CONTROLLER = {"controller": {"metrics": {"enabled": True}}}


def dashboard(manifests: Manifests) -> dict[str, Any]:
    [content] = manifests.one("ConfigMap", "tokenbucket-dashboard")["data"].values()
    return json.loads(content)


def rules(manifests: Manifests) -> list[Document]:
    [document] = manifests.of("PrometheusRule")
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def expressions(manifests: Manifests) -> Iterator[str]:
    """Return the expression of every alert, panel and variable."""
    yield from (rule["expr"] for rule in rules(manifests))
    yield from panels(manifests)
    yield from (
        each["query"]["query"]
        for each in dashboard(manifests)["templating"]["list"]
        if each["type"] == "query"
    )


def panels(manifests: Manifests) -> Iterator[str]:
    for panel in dashboard(manifests)["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_every_expression_uses_existing_metrics_and_labels(full: Manifests) -> None:
    """Find expressions that would never match."""
    found = [match for text in expressions(full) for match in METRIC.findall(text)]
    assert len(found) > 30
    for name, matchers in found:
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert name in SERVED
        assert labels <= SERVED[name] | OF_TARGETS, name


def test_labels_in_texts_exist(full: Manifests) -> None:
    """Compare the labels with the metric of the text."""
    for rule in rules(full):
        labels = {label for name, _ in METRIC.findall(rule["expr"]) for label in SERVED[name]} | OF_TARGETS
        named = re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))
        assert set(named) <= labels, rule["alert"]
    for panel in dashboard(full)["panels"]:
        for target in panel["targets"]:
            labels = {
                label for name, _ in METRIC.findall(target["expr"]) for label in SERVED[name]
            } | OF_TARGETS
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]


def test_every_reason_has_one_alert(full: Manifests) -> None:
    """Require none for reasons that need no manual action."""
    selectors = [
        re.findall(r'(\w+)(!=|!~|=~|=)"([^"]+)"', rule["expr"])
        for rule in rules(full)
        if "limits_not_as_declared" in rule["expr"]
    ]
    matched = [reason for reason in Reason for matchers in selectors if selects(matchers, reason)]
    assert sorted(matched) == sorted(
        reason for reason in Reason if reason.effect in {Effect.DEGRADED, Effect.FAILED}
    )


def selects(matchers: list[tuple[str, str, str]], reason: Reason) -> bool:
    labels = {"reason": str(reason), "effect": str(reason.effect)}
    return all(
        bool(re.fullmatch(value, labels[label])) is (operator in {"=", "=~"})
        for label, operator, value in matchers
    )


def test_every_alert_has_a_runbook(full: Manifests) -> None:
    """Use a section of docs/reference/alerts.md, which has no other sections."""
    page = (ROOT / "docs" / "reference" / "alerts.md").read_text()
    sections = set(re.findall(r"^## (TokenBucket\w+)$", page, re.MULTILINE))
    assert sections == {rule["alert"] for rule in rules(full)}
    for rule in rules(full):
        section = f"/docs/reference/alerts.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"].endswith(section)
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


@pytest.fixture(scope="session")
def checker() -> Path:
    return promtool()


def run_promtool(checker: Path, *words: str | Path) -> None:
    done = subprocess.run([checker, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_only_on_its_condition(checker: Path, full: Manifests, tmp_path: Path) -> None:
    [document] = full.of("PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document["spec"]))
    run_promtool(checker, "check", "rules", tmp_path / "rules.yaml")
    shutil.copy(HERE / "alerts_test.yaml", tmp_path)
    run_promtool(checker, "test", "rules", tmp_path / "alerts_test.yaml")


def test_prometheus_parses_each_expression_of_the_dashboard(
    checker: Path, full: Manifests, tmp_path: Path
) -> None:
    """Substitute the variables of Grafana."""
    texts = [text.replace("$__rate_interval", "5m").replace("$namespace", ".*") for text in panels(full)]
    assert not [text for text in texts if "$" in text]
    records = [{"record": f"panel_{number}", "expr": text} for number, text in enumerate(texts)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    run_promtool(checker, "check", "rules", tmp_path / "panels.yaml")


def test_the_dashboard_is_one_page_without_gaps(full: Manifests) -> None:
    """Describe each panel, and place no two panels in one place."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(full)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert panel["description"], panel["title"]
        taken |= cells
    assert taken == {(x, y) for x in range(24) for y in range(1 + max(y for _, y in taken))}


def test_the_podmonitor_uses_ports_of_agents_and_controller(full: Manifests) -> None:
    """Match no other pod."""
    [monitor] = full.of("PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"], "a limited pod's namespace and name are not its agent's"
    selector = monitor["spec"]["selector"]["matchLabels"]
    asked = {}
    for each in full.documents:
        template = each.get("spec", {}).get("template", {})
        if selector.items() <= template.get("metadata", {}).get("labels", {}).items():
            [container] = template["spec"]["containers"]
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            [address] = [word for word in container["args"] if word.startswith("--metrics-address")] or [None]
            if endpoint["port"] in ports:
                asked[each["metadata"]["name"]] = address.endswith(f":{ports[endpoint['port']]}")
    assert asked == dict.fromkeys(
        ["tokenbucket-agent", "tokenbucket-agent-canary", "tokenbucket-controller"], True
    )


def test_services_lead_a_service_monitor_to_the_same_metrics(chart: Chart) -> None:
    """Use path, TLS and labels of the PodMonitor."""
    settings = {
        "jobLabel": "app.kubernetes.io/component",
        "relabelings": [{"targetLabel": "cluster", "replacement": "a"}],
        "metricRelabelings": [{"action": "labeldrop", "regex": "pod"}],
        "labels": {"release": "prometheus"},
    }
    values = AGENT | CONTROLLER | {"metricsTLS": {"secret": "metrics"}}
    [by_pod] = chart.render(values | {"podMonitor": {"enabled": True, **settings}}).of("PodMonitor")
    rendered = chart.render(values | {"serviceMonitor": {"enabled": True}, "podMonitor": settings})
    [by_service] = rendered.of("ServiceMonitor")
    assert by_service["spec"]["endpoints"] == by_pod["spec"]["podMetricsEndpoints"]
    assert by_service["spec"]["jobLabel"] == by_pod["spec"]["jobLabel"] == settings["jobLabel"]
    [endpoint] = by_service["spec"]["endpoints"]
    assert endpoint["relabelings"][1:] == settings["relabelings"]
    assert endpoint["metricRelabelings"] == settings["metricRelabelings"]
    selector = by_service["spec"]["selector"]["matchLabels"]
    for service in (each for each in rendered.of("Service") if "metrics" in each["metadata"]["name"]):
        assert selector.items() <= service["metadata"]["labels"].items()
        found = [
            each["metadata"]["name"]
            for kind in ("DaemonSet", "Deployment")
            for each in rendered.of(kind)
            if service["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert [f"{name}-metrics" for name in found] == [service["metadata"]["name"]]


def test_a_podmonitor_and_a_servicemonitor_exclude_each_other(chart: Chart) -> None:
    """Avoid that both double every metric."""
    values = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    with pytest.raises(ChartError, match=r"serviceMonitor\.enabled: podMonitor\.enabled reads the same"):
        chart.render(AGENT | values)


def test_an_alert_about_agents_is_one_alert_for_all_nodes(full: Manifests) -> None:
    """Aggregate each expression, and name nodes in the annotation."""
    for rule in rules(full):
        expression = rule["expr"].strip()
        if any(name in expression for name in AGENT_METRICS) and not expression.startswith("absent"):
            assert re.match(r"(count|sum)\b", expression), rule["alert"]
            assert "query" in rule["annotations"]["nodes"], rule["alert"]


def test_metrics_are_served_and_scraped_over_tls(chart: Chart) -> None:
    """Mount the Secret as optional, because limits do not depend on it."""
    trust = {"ca": {"secret": {"name": "metrics", "key": "ca.crt"}}}
    values = {"metricsTLS": {"secret": "metrics"}, "podMonitor": {"enabled": True, "tlsConfig": trust}}
    rendered = chart.render(AGENT | CONTROLLER | values)
    [monitor] = rendered.of("PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"]) == ("https", trust)
    for name in ("tokenbucket-agent", "tokenbucket-controller"):
        pod = rendered.pods()[name]
        [container] = pod["containers"]
        files = parser().parse_args(container["args"]).metrics_tls
        [folder] = [
            mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "metrics-tls"
        ]
        [volume] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "metrics-tls"]
        assert files == [Path(folder) / "tls.crt", Path(folder) / "tls.key"]
        assert volume == {"secretName": "metrics", "optional": True}


@pytest.mark.parametrize(("role", "groups"), [(AGENT, {"agent", "api"}), (CONTROLLER, {"controller", "api"})])
def test_metrics_that_are_off_have_no_alert_on_their_absence(
    chart: Chart, role: dict[str, Any], groups: set[str]
) -> None:
    """Avoid an alert that fires forever."""
    [document] = chart.render(role | {"prometheusRule": {"enabled": True}}).of("PrometheusRule")
    assert {group["name"] for group in document["spec"]["groups"]} == {
        f"tokenbucket-{each}" for each in groups
    }


@pytest.mark.parametrize("value", ["podMonitor", "prometheusRule", "serviceMonitor"])
def test_monitoring_without_metrics_is_an_error(chart: Chart, value: str) -> None:
    """Name the values to set."""
    with pytest.raises(
        ChartError, match=f"{value}.enabled: no metrics are enabled; set agent.metrics.enabled"
    ):
        chart.render({value: {"enabled": True}})


def test_two_servers_on_one_port_are_an_error(chart: Chart) -> None:
    """Fail at rendering, because the controller would restart forever."""
    with pytest.raises(ChartError, match=r"controller\.metrics\.port: 7000 is also controller\.probePort"):
        chart.render({"controller": {"probePort": 7000, "metrics": {"enabled": True, "port": 7000}}})


def test_no_metrics_are_served_by_default(default: Manifests) -> None:
    """Open no port of a node by an upgrade."""
    for pod in default.pods().values():
        [container] = pod["containers"]
        assert not [word for word in container.get("args", ()) if "metrics" in word]
        assert "metrics" not in {port["name"] for port in container.get("ports", ())}
    assert not [kind for kind in KINDS if default.of(kind)]
