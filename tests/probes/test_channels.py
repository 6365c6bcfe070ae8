"""The worst channels against plain numpy, on the CPU and by the CUDA kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evalharness.probes.channels import EVERY, TOP, ChannelSums

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_worst_channels_are_those_of_plain_numpy(device: str, dtype: torch.dtype) -> None:
    """Two modules of unlike widths, in two chunks; padding and first positions left out."""
    torch.manual_seed(0)
    docs = torch.randint(-1, 3, (3, 200), device=device)
    at = torch.arange(200, device=device).expand(3, 200)
    counts = ((docs >= 0) & (at > 0)).flatten().cpu().numpy()
    keep = np.array([i for i in range(0, 600, EVERY) if counts[i]])
    sums = ChannelSums(torch.device(device))
    expected = {}
    for name, width in (("narrow", 5), ("wide", 333)):
        total = np.zeros(width)
        for _ in range(2):
            a, b = (torch.randn(3, 200, width, device=device).to(dtype) for _ in range(2))
            sums.add("total", name, a, b, docs, at)
            a, b = (t.float().cpu().numpy().reshape(600, width)[keep] for t in (a, b))
            total += ((b - a) ** 2).sum(0)
        expected[name] = total
    rows = sums.table().to_pandas()
    for name, total in expected.items():
        own = rows[rows["layer"] == name]
        best = np.argsort(-total)[:TOP]
        assert own["channel"].tolist() == best.tolist()
        np.testing.assert_allclose(own["err_sq"], total[best], rtol=1e-5)
        np.testing.assert_allclose(own["all_err_sq"], total.sum(), rtol=1e-5)
        assert set(own["tokens"]) == {2 * len(keep)}
    assert sums.table().num_rows == 0
