"""Intervals in table cells stand where their numbers do."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from evalharness.report import interval_bars


def marks(svg: str) -> dict[str, list[float]]:
    """Class → x positions of what a bar draws."""
    found: dict[str, list[float]] = {}
    for e in ET.fromstring(svg).iter():
        x = e.get("cx") or e.get("x") or (e.get("d") or "M0 ")[1:].split()[0]
        found.setdefault(e.get("class", ""), []).append(float(x))
    return found


@pytest.mark.parametrize("side", ["max", "min"])
@pytest.mark.parametrize("limit", [1.0, 1.5, 2.5])
def test_a_bar_draws_the_point_on_its_side_of_the_limit(side: str, limit: float) -> None:
    """Left and right in the picture are below and above in the numbers."""
    drawn = marks(interval_bars.gate_bar(2.0, 1.8, 2.2, limit, side, "FAIL", "label"))  # type: ignore[arg-type]
    assert (drawn["point"][0] < drawn["limit"][0]) == (limit > 2.0)
    zone = drawn["ok"][0]
    assert zone == (0.0 if side == "max" else pytest.approx(drawn["limit"][0], abs=0.1))


def test_no_interval_is_a_hollow_point_and_no_number_is_said() -> None:
    """Neither looks like a measured interval of no width."""
    drawn = marks(interval_bars.gate_bar(2.0, None, None, 1.0, "max", "INCONCLUSIVE", "x"))
    assert "hollow" in drawn
    assert "whisker" not in drawn
    assert "no number to draw" in interval_bars.gate_bar(None, None, None, 1.0, "max", "FAIL", "x")


def test_equal_numbers_still_make_a_scale() -> None:
    """A value exactly at its limit divides by no zero."""
    for value in (0.0, 1.0, -3.0):
        drawn = marks(interval_bars.gate_bar(value, value, value, value, "max", "PASS", "x"))
        assert drawn["point"][0] == pytest.approx(drawn["limit"][0], abs=0.1)
