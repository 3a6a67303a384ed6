"""The plugin as its users run it, against an API server in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from tests.unit.fake_api import FakeApi
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.plugin.main import main

POLICY = {
    "apiVersion": "tokenbucket.dev/v1alpha1",
    "kind": "TokenBucketPolicy",
    "metadata": {"generation": 1, "creationTimestamp": "2026-11-01T00:00:00Z"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": {"rate": {"bits": "10M"}},
    },
}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def cluster(api: FakeApi) -> FakeApi:
    """Provide a cluster with one pod and one policy, and without a report about them."""
    api.kinds |= {PODS, POLICIES, REPORTS, NODES, CONFIG_MAPS}
    api.put(POLICIES, "web", "shop", **POLICY)
    api.put(PODS, "web-1", "shop", metadata={"labels": {"app": "web"}}, spec={"nodeName": "n1"}, status={})
    return api


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Result:
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        return Result(code, *capsys.readouterr())

    return run
