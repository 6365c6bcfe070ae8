"""The templates are found in a clone and in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

import evalharness
from evalharness.report.assets import reports_dir


def test_a_clone_keeps_them_at_its_root() -> None:
    """Here, beside the package."""
    assert (reports_dir() / "report.css").is_file()


def test_a_wheel_keeps_them_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``evalharness/_data/reports`` goes before anything beside the package."""
    package = tmp_path / "evalharness"
    inside = package / "_data" / "reports"
    inside.mkdir(parents=True)
    (inside / "report.html.j2").write_text("")
    beside = tmp_path / "reports"
    beside.mkdir()
    (beside / "report.html.j2").write_text("")
    monkeypatch.setattr(evalharness, "__file__", str(package / "__init__.py"))
    assert reports_dir() == inside


def test_missing_templates_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both places, and what to do."""
    monkeypatch.setattr(evalharness, "__file__", str(tmp_path / "evalharness" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="Install evalharness again"):
        reports_dir()
