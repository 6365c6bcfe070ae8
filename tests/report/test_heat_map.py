"""The heat map shades by size, and tells nothing from little."""

from __future__ import annotations

import pytest

from evalharness.report import heat_map


@pytest.mark.parametrize(
    ("value", "shade"), [(None, "n"), (0.0, "z"), (0.01, "0"), (1.0, "6"), (0.1, "3")]
)
def test_zero_and_missing_have_shades_of_their_own(value: float | None, shade: str) -> None:
    """Exactly 0 is not merely little, and no number is not 0."""
    assert heat_map.heat_step(value, -2, 0) == shade
