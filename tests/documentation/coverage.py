"""Which test runs each example of the documentation, and why some run in none."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from tests.documentation.blocks import Block
from tests.documentation.examples import Place, examples, runs

GETTING_STARTED = "docs/getting-started/kubernetes.md"
ON_MACHINE = {
    Place("docs/getting-started/standalone.md", "Containers on this machine"),
    Place("docs/getting-started/standalone.md", "Single interfaces"),
    Place("docs/reference/metrics.md", "Activation", 2),
    Place("docs/troubleshooting.md", "No limit on the node", 1),
    Place("docs/troubleshooting.md", "A rejected manifest in the manifests folder"),
}
"""Without Kubernetes: tests/netns/test_documented_commands.py."""
REPEATS = {
    Place("README.md", "Installation"): GETTING_STARTED,
    Place("charts/tokenbucket/README.md", "Installation"): GETTING_STARTED,
    Place("charts/tokenbucket/README.md", "Enforcement mode"): "docs/tasks/turn-off-enforcement.md",
    Place("charts/tokenbucket/README.md", "Uninstallation", 1): "docs/tasks/uninstall.md",
}
"""Examples whose commands are those of another page, which runs."""

SHOWN = {
    "SECURITY.md": "a formula",
    "docs/benchmarks/*": "output of a benchmark",
    "docs/concepts/*": "figures and formulas",
    "docs/contributing/*": "figures and formulas",
    "docs/getting-started/*": "output of the commands before it",
    "docs/migration/cni-bandwidth-plugin.md": "a part of a CNI configuration",
    "docs/reference/alerts.md": "tests/chart evaluates each expression with promtool",
    "docs/reference/cli.md": "make generate writes it",
    "docs/reference/plugin.md": "make generate writes it",
    "docs/tasks/choose-rate-and-burst.md": "output that depends on the traffic",
    "docs/tasks/explain-a-pod.md": "tests/e2e/test_explain.py shows the cause",
    "docs/troubleshooting.md": "lines of a log, and a message that tests/netns/test_shadowed.py causes",
}
"""Pages with blocks that are no commands, with the reason."""

_BENCH = "measures for minutes to hours on a quiet machine"
NOT_RUN = {
    ("CONTRIBUTING.md", "*"): "builds and tests the checkout: the workflows do",
    ("README.md", "Demo and tests"): "builds and tests the checkout: the workflows do",
    ("charts/tokenbucket/README.md", "Uninstallation (3)"): "tests/e2e/test_installation.py runs it",
    ("docs/benchmarks/*", "*"): _BENCH,
    ("docs/contributing/*", "*"): "needs a registry, or the cluster of a user",
    ("docs/getting-started/standalone.md", "Demo"): "clones the repository and builds: make test-fresh does",
    ("docs/migration/cilium-bandwidth-manager.md", "Steps"): "needs Cilium, installed by its chart",
    ("docs/migration/cni-bandwidth-plugin.md", "Steps"): "tests/netns/test_annotations.py runs it",
    ("docs/reference/live.md", "Access (1)"): "tests/chart renders it; needs users",
    ("docs/tasks/check-nodes.md", "*"): "tests/e2e/test_plugin.py runs it; the exit status depends on fq",
    ("docs/tasks/choose-rate-and-burst.md", "Measurements"): _BENCH,
    (
        "docs/tasks/choose-rate-and-burst.md",
        "Observe mode",
    ): "needs traffic: test_plugin.py sends it",
    ("docs/tasks/explain-a-pod.md", "Install the plugin"): "installs from a package index",
    ("docs/tasks/explain-a-pod.md", "See all policies"): "tests/netns/test_shadowed.py attaches the program",
    ("docs/tasks/inspect-limits.md", "Watch rates and losses"): "tests/e2e/test_plugin.py sends the traffic",
    ("docs/tasks/install-with-other-tools.md", "*"): "tests/e2e/test_installation.py; needs Flux or Argo CD",
    ("docs/troubleshooting.md", "Packets are not limited because of an unused slot"): (
        "tests/netns/test_agent.py makes the filter"
    ),
    ("docs/troubleshooting.md", "Delay is degraded to Drop"): "tests/e2e/test_explain.py; depends on fq",
}
"""Examples that no test runs as written, by page and section, with the reason."""

_WRONG = """\
apiVersion: tokenbucket.dev/v1alpha1
kind: TokenBucketPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {}
  ingress: {rate: {bits: 100Mbps}}
"""
FILES = {
    Place("docs/troubleshooting.md", "A policy is rejected"): {"web.yaml": _WRONG},
    Place("docs/troubleshooting.md", "A rejected manifest in the manifests folder"): {
        "limits/web.yaml": _WRONG
    },
}
"""Files of the reader that an example uses."""


def reason_not_to_run(place: Place) -> str | None:
    """Return the listed reason for which no test runs the example."""
    title = str(place).partition(": ")[2]
    matching = (
        reason
        for (page, section), reason in NOT_RUN.items()
        if fnmatchcase(place.page, page) and section in {"*", title}
    )
    return next(matching, None)


def reason_to_show(page: str) -> str | None:
    """Return the listed reason for which a page has blocks that are no commands."""
    return next((reason for glob, reason in SHOWN.items() if fnmatchcase(page, glob)), None)


def on_cluster() -> Iterator[tuple[Place, list[Block]]]:
    """Yield the examples that run on a cluster, except the page that installs the chart."""
    for place, found in examples():
        elsewhere = place in ON_MACHINE or place in REPEATS or place.page == GETTING_STARTED
        if any(map(runs, found)) and not elsewhere and not reason_not_to_run(place):
            yield place, found
