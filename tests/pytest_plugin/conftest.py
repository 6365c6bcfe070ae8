"""What the sessions inside a session find."""

from __future__ import annotations

import sys

import pytest

import evalharness
from tests.pytest_plugin.fake_api import POLICY, FakeApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The fake, where the plugin will import it from."""
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "evalharness.api", fake)
    monkeypatch.setattr(evalharness, "api", fake, raising=False)
    return fake


@pytest.fixture
def gates(pytester: pytest.Pytester, api: FakeApi) -> pytest.Pytester:
    """A folder with a policy, and a YAML file that is none."""
    (pytester.path / "p.yaml").write_text(POLICY)
    (pytester.path / "compose.yaml").write_text("services: {web: {image: x}}\n")
    return pytester
