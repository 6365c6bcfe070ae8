"""What ships against what is resident, and what is not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalharness.gates import decide, load_policy
from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.cost import emulated, sizes
from evalharness.run.directory import InMemory
from evalharness.testing.records import MANIFEST

DENSE = {
    "bits_per_weight": 5.0,  # a GGUF file that was unpacked to 16 bits
    "weight_bytes": 500,
    "ships": "files",
    "counted_bits_per_weight": 16.0,
    "counted_bytes": 1600,
    "resident_bytes": 1600,
    "compressed_share": 1.0,
}
FILE = DENSE | {"bits_per_weight": 4.0, "weight_bytes": 400}
MADE = DENSE | {
    "bits_per_weight": 8.0,
    "weight_bytes": 800,
    "counted_bits_per_weight": 8.0,
    "counted_bytes": 800,
    "ships": "tensors",
}


def of(reference: dict[str, Any], candidate: dict[str, Any]) -> Estimates:
    """The estimates of a run with these two manifests."""
    sides = {"reference": {"manifest": reference}, "candidate": {"manifest": candidate}}
    manifest: Any = {**MANIFEST, "sides": sides}
    return Estimates(Evidence(InMemory(manifest, {})))


def value(found: Estimates, metric: str) -> float | None:
    """The value over everything."""
    return found.estimate(metric, {}, 0.95).value


def test_files_are_held_against_files() -> None:
    """Two GGUF files are as dense as each other here, and not where they ship."""
    found = of(DENSE, FILE)
    assert value(found, "weights.bits_per_weight") == 4.0
    assert value(found, "memory.weights.ratio") == 0.8
    assert value(found, "memory.resident.ratio") == 1.0


def test_what_is_made_on_loading_is_held_against_what_it_was_made_of() -> None:
    """Tensors against tensors: the file of the reference is smaller than either."""
    found = of(DENSE, MADE)
    assert value(found, "memory.weights.ratio") == 0.5
    shown = sizes(found.evidence.run.manifest)
    assert [s["bits_per_weight"] for s in shown.values()] == [16.0, 8.0]


@pytest.mark.parametrize(
    "metric", ["weights.bits_per_weight", "memory.weights.ratio", "memory.resident.ratio"]
)
def test_what_was_not_counted_is_not_measured(metric: str) -> None:
    """With the reason, and without a number that a gate could pass on."""
    empty = dict.fromkeys(("bits_per_weight", "weight_bytes", "resident_bytes"))
    found = of(DENSE, FILE | empty | {"not_measured": "codes of no known form"})
    estimate = found.estimate(metric, {}, 0.95)
    assert (estimate.value, estimate.reason) == (None, "codes of no known form")


def test_a_run_of_an_earlier_version_has_what_it_recorded() -> None:
    """Bits and bytes of its tensors, and no others."""
    old = {"bits_per_weight": 4.5, "weight_bytes": 450}
    found = of({"bits_per_weight": 16.0, "weight_bytes": 1600}, old)
    assert value(found, "weights.bits_per_weight") == 4.5
    assert value(found, "memory.weights.ratio") == 450 / 1600
    assert found.scopes("memory.resident.ratio") == []
    assert found.scopes("weights.compressed_share") == []


def test_an_emulated_kernel_has_no_latency() -> None:
    """What a kernel of the deployment would take cannot be seen in the seconds of another."""
    found = of(DENSE, FILE | {"kernel": "dequantised on loading"})
    estimate = found.estimate("latency.decode.ratio", {}, 0.95)
    assert estimate.value is None
    assert estimate.reason == "not the deployed kernel: weights are dequantised on loading"


@pytest.mark.parametrize("kernel", ["dense", "low-bit", "dequantised on the fly", None])
def test_a_kernel_that_could_be_deployed_is_not_called_emulated(kernel: str | None) -> None:
    """Nor is that of an earlier version, which recorded none."""
    assert emulated(of(DENSE, FILE | {"kernel": kernel}).evidence) is None


def test_a_gate_on_what_was_not_counted_never_passes(tmp_path: Path) -> None:
    """However loose its limit."""
    file = tmp_path / "policy.yaml"
    file.write_text(
        "version: 1\ngates:\n"
        "  - {metric: memory.weights.ratio, max: 9}\n"
        "  - {metric: weights.bits_per_weight, max: 1.0e+6}\n"
        "  - {metric: weights.compressed_share, min: 0}\n"
    )
    empty = dict.fromkeys(("bits_per_weight", "weight_bytes", "compressed_share"))
    found = of(DENSE, FILE | empty | {"not_measured": "codes of no known form"})
    verdicts = [g.verdict for g in decide(load_policy(file), found).gates]
    assert len(verdicts) == 3
    assert "PASS" not in verdicts
