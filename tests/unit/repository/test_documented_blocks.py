"""Validation of each example of the documentation by its parser or schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation.blocks import PAGES, ROOT, blocks, spans
from tests.documentation.languages import block_problems, span_problems

POLICY = """\
apiVersion: tokenbucket.dev/v1alpha1
kind: TokenBucketPolicy
metadata: {name: web}
spec:
  podSelector: {}
"""


def problems(text: str) -> list[str]:
    made: set[str] = set()
    return [
        f"line {block.line}: {problem}" for block in blocks(text) for problem in block_problems(block, made)
    ] + [
        f"line {span.line}: {span.text}: {problem}" for span in spans(text) for problem in span_problems(span)
    ]


@pytest.mark.parametrize("name", PAGES, ids=str)
def test_each_example_is_valid(name: Path) -> None:
    """Find pages that an API or an option has left behind."""
    assert problems((ROOT / name).read_text()) == []


@pytest.mark.parametrize(
    ("language", "text", "problem"),
    [
        ("", "anything", "has no check"),
        ("toml", "a = 1", "has no check"),
        ("sh", "frobnicate web", "program frobnicate"),
        ("sh", "kubectl get tpb", "resource tpb"),
        ("sh", "kubectl get tbp --no-such-option", "option --no-such-option"),
        ("sh", "kubectl get tbp -o jsonpath='{.items[*].status.pods.limited}'", ".status.pods.limited"),
        ("sh", "kubectl get tbp web -o jsonpath='{.status.conditions[?(@.type==\"Good\")].reason}'", "Good"),
        ("sh", "kubectl wait tbp web --for=condition=Available", "Available"),
        ("sh", """kubectl patch tbp web --patch '{"spec": {"mod": "Observe"}}'""", ".spec.mod: is unknown"),
        ("sh", """kubectl patch tbp web --patch '{"spec": {"mode": "Watch"}}'""", "'Watch' is none of"),
        ("sh", "kubectl label node a tokenbucket.dev/enforce=Off", "nothing reads tokenbucket.dev/enforce"),
        ("sh", "kubectl apply -f web.yaml", "does not make the file web.yaml"),
        ("sh", "kubectl exec pod -- tokenbucket state", "invalid choice"),
        ("sh", "kubectl tokenbucket explain", "required"),
        ("sh", "name=$(kubectl get tpb) && echo $name", "resource tpb"),
        (
            "sh",
            "helm upgrade a charts/tokenbucket --set agent.metric.enabled=true",
            ".agent.metric: is unknown",
        ),
        ("sh", "helm upgrade a charts/tokenbucket --set agent.metrics.enabled=1", "is no boolean"),
        ("sh", "helm install a charts/bucket", "charts/bucket does not exist"),
        ("sh", "make no-such-target", "no target no-such-target"),
        ("sh", "make test ARG=-x", "nothing reads ARG"),
        ("sh", "tokenbucket attach --dev eth0 --rate 1M", "required"),
        ("sh", "tokenbucket status < file", "operator"),
        ("console", "$ kubectl get tpb", "resource tpb"),
        ("text", "NAME   INGRES   READY", "no column INGRES"),
        ("promql", "rate(tokenbucket_no_such_total[5m])", "no metric tokenbucket_no_such_total"),
        ("json", '{"uids": []}', "from 1 to"),
        ("yaml", POLICY, "ingress"),
        ("yaml", POLICY + "  ingress: {rate: {bit: 1M}}", ".spec.ingress.rate.bit: is unknown"),
        ("yaml", POLICY + "  ingress: {rate: {bits: 1Mbps}}", "suffix"),
        ("yaml", "apiVersion: tokenbucket.dev/v1\nkind: TokenBucketPolicy\nmetadata: {name: a}", "no kind"),
        ("yaml", "apiVersion: v1\nkind: Pod", "no metadata"),
        ("yaml", "ingress: {rat: {bits: 1M}}", ".ingress.rat: is unknown"),
        ("yaml", "agent: {metric: {}}", ".agent.metric: is unknown"),
        ("yaml", "spec: {}", "neither"),
        ("yaml", "a: [", "is no YAML"),
    ],
)
def test_a_fault_in_an_example_is_found(language: str, text: str, problem: str) -> None:
    """Try each kind of example and each check."""
    found = problems(f"```{language}\n{text}\n```\n")
    assert any(problem in each for each in found), found


def test_a_fault_in_prose_is_found() -> None:
    """Check only commands with arguments, because a name alone can be part of a sentence."""
    assert problems("Run `kubectl get tpb web`, or `kubectl frobnicate`.") == [
        "line 1: kubectl get tpb web: the checks do not know the resource tpb"
    ]
