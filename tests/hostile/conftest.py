"""Hostile input is tried as a pull request would bring it: the environment allows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

CANARY = "open('canary', 'w').close()\nopen(__file__ + '.canary', 'w').close()\n"


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory is the pull request's; no canary may be there in the end."""
    monkeypatch.delenv("EVALHARNESS_ALLOW_CODE")
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("*canary")), "a file of the pull request was run"
