"""GGUF files become dense models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evalharness.engines.file_headers import gguf_tensors
from evalharness.engines.loading import load
from tests.engines.conftest import (
    Make,
    tiny,
    write_gguf,
)


def test_a_gguf_file_is_loaded_dense(gguf_file: Path, spec: Make, tmp_path: Path) -> None:
    """Oracle: the model it was written from, but for Q8_0; it can be saved afterwards."""
    got = load(spec(gguf_file, dtype="float32"))
    expected = tiny(dtype=torch.float32).state_dict()
    for name, value in got.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=5e-4, rtol=0)
    assert got.manifest.claimed == {"file": "GGUF: 16 Q8_0, 5 F32; 8.57 bits per weight"}
    assert got.manifest.dtype == "float32"
    assert getattr(got.model.config, "quantization_config", None) is None
    got.model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()


def test_a_four_bit_gguf_file_is_recognised_as_such(spec: Make, tmp_path: Path) -> None:
    """Dense in memory, its values on a 4-bit grid."""
    write_gguf(tmp_path / "q4.gguf", tiny(), "Q4_0")
    got = load(spec(tmp_path / "q4.gguf", dtype="bfloat16"))
    assert got.manifest.groups[0].storage == "bfloat16, values on a 4-bit grid per 32 columns"
    m = got.manifest
    assert m.counted_bits_per_weight == 16.0
    table = gguf_tensors(tmp_path / "q4.gguf", "k")
    assert m.weight_bytes == sum(t.bytes or 0 for t in table)  # what ships
    assert m.bits_per_weight == 8 * m.weight_bytes / m.parameters
    assert m.bits_per_weight == pytest.approx(4.5, abs=0.1)
    assert m.format.startswith("GGUF Q4_0, GGUF F32, unpacked to bfloat16")
    assert m.resident_bytes == 2 * m.parameters
    assert (m.ships, m.kernel, m.compressed_share) == ("files", "dequantised on loading", 1.0)
    assert [(g.storage, g.tensors) for g in m.file_groups] == [("GGUF Q4_0", 16), ("GGUF F32", 5)]


def test_reading_a_gguf_file_leaves_the_library_as_it_was(gguf_file: Path, spec: Make) -> None:
    """The shortcuts end with the load."""
    import gguf

    before = (gguf.GGUFReader, gguf.get_tensor_name_map)
    load(spec(gguf_file))
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
