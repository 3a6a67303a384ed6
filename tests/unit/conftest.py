"""Fixtures of the unit rung."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.unit.fake_api import FakeApi
from tokenbucket import pacing
from tokenbucket.apiserver import connection, watch
from tokenbucket.apiserver.resources import PODS, POLICIES


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """Serve pods and policies. Clients find the server, and retry fast."""
    with FakeApi(PODS, POLICIES) as api:
        config = {
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
            "users": [{"name": "fake", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setattr(connection, "_TOKEN", tmp_path / "token")
        for module in (pacing, watch):
            fast = SimpleNamespace(uniform=lambda *_: 0.02, randrange=lambda _: 0)
            monkeypatch.setattr(module, "random", fast)
        yield api
