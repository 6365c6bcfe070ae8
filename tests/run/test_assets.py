"""Shipped files are found in a clone and in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.run import assets


def test_a_clone_keeps_them_at_its_root() -> None:
    """Here, beside the package."""
    assert (assets.folder("reports") / "report.css").is_file()


def test_a_wheel_keeps_them_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``evalharness/_data/reports`` goes before anything beside the package."""
    inside = tmp_path / "evalharness" / "_data" / "reports"
    inside.mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "evalharness")
    assert assets.folder("reports") == inside


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "evalharness")
    with pytest.raises(InputError, match="the shipped reports are missing"):
        assets.folder("reports")
