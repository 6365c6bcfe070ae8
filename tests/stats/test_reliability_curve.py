"""The smooth reliability curve."""

from __future__ import annotations

import numpy as np
import pytest

from evalharness.stats import smooth_reliability

GRID = np.linspace(0, 1, 201)


def test_a_calibrated_model_lies_on_the_diagonal() -> None:
    """With 200,000 calibrated rows the curve is the diagonal away from the reflected ends."""
    rng = np.random.default_rng(0)
    conf = rng.random(200_000)
    curve = smooth_reliability(conf, rng.random(200_000) < conf, 0.02, GRID)
    middle = (curve.grid > 0.06) & (curve.grid < 0.94)
    assert np.abs(curve.accuracy - curve.grid)[middle].max() < 0.02


def test_the_density_integrates_to_1() -> None:
    """Reflection keeps all the mass inside [0, 1], also next to the ends."""
    conf = np.concatenate([np.full(10, 0.01), np.full(30, 0.98)])
    density = smooth_reliability(conf, np.ones(40), 0.1, GRID).density
    assert np.trapezoid(density, GRID) == pytest.approx(1.0, abs=1e-3)


def test_the_curve_is_a_kernel_mean() -> None:
    """Two rows at .25 and .75: the midpoint is their mean, up to the cells."""
    curve = smooth_reliability([0.25, 0.75], [0, 1], 0.1, [0.25, 0.5, 0.75])
    near = np.exp(-0.5 * (0.5 / 0.1) ** 2)
    assert curve.accuracy == pytest.approx([near, 0.5, 1 - near], abs=2e-3)


@pytest.mark.parametrize("bandwidth", [0.0, 0.0001, 2.0])
def test_a_bandwidth_out_of_range_is_refused(bandwidth: float) -> None:
    """Bandwidths that the cells cannot resolve or that exceed the scale are errors."""
    with pytest.raises(ValueError, match=r"bandwidth: must be in \[0.001,1\], got"):
        smooth_reliability([0.5], [1], bandwidth, GRID)


def test_no_rows_have_no_curve() -> None:
    """An empty input is an error."""
    with pytest.raises(ValueError, match="conf: must hold at least one row"):
        smooth_reliability([], [], 0.05, GRID)
