"""ONNX Runtime GenAI beside transformers, on a model that the builder makes here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evalharness.engines.file_groups import onnx_groups
from evalharness.engines.loading import load
from evalharness.errors import InputError
from evalharness.pair.side import Side
from tests.engines.conftest import ALL, IDS, Make, byte_tokenizer, tiny


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model in float32 and in 4 bits, as users build it."""
    folder = tmp_path_factory.mktemp("onnx")
    tiny(dtype=torch.float32).save_pretrained(folder / "dense")
    byte_tokenizer().save_pretrained(folder / "dense")
    found = {}
    for kind in ("fp32", "int4"):
        found[kind] = folder / kind
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
        command += ["-i", str(folder / "dense"), "-o", str(found[kind]), "-p", kind]
        subprocess.run([*command, "-c", str(folder / "cache")], check=True, capture_output=True)
    return found


@pytest.mark.e2e
def test_float_weights_give_the_logits_of_transformers(spec: Make, built: dict[str, Path]) -> None:
    """In chunks too, and 4 bits give others."""
    plain = Side(load(spec(built["fp32"].parent / "dense", dtype="float32")))
    expected = plain.logits(plain.hidden(IDS)[0])
    for chunk in (128, 10):
        side = Side(load(spec(built["fp32"], engine="onnx", chunk=chunk)))
        torch.testing.assert_close(side.logits(side.hidden(IDS)[0]), expected, atol=1e-4, rtol=0)
        # Only what is asked for is computed and handed over, in any order.
        places = side.hidden(IDS)[0]
        some = torch.tensor([30, 5, 6])
        torch.testing.assert_close(side.logits(places[some]), expected[some], atol=1e-4, rtol=0)
    low = Side(load(spec(built["int4"], engine="onnx")))
    assert (low.logits(low.hidden(IDS)[0]) - expected).abs().max() > 1e-3


@pytest.mark.e2e
def test_bits_are_counted_with_their_scales(spec: Make, built: dict[str, Path]) -> None:
    """By hand: 4 bits and a float32 scale for 32 weights are 5 bits."""
    dense = onnx_groups(built["fp32"] / "model.onnx")
    assert sum(g.parameters for g in dense) == ALL
    assert {g.bits_per_weight for g in dense} == {32.0}
    low = {g.storage: g for g in onnx_groups(built["int4"] / "model.onnx")}
    assert low["ONNX int4 in blocks of 32"].bits_per_weight == 5.0
    assert sum(g.parameters for g in low.values()) == ALL
    manifest = load(
        spec(
            built["int4"],
            engine="onnx",
        )
    ).manifest
    assert manifest.parameters == ALL
    assert manifest.bits_per_weight < 32


def test_a_folder_that_is_no_such_model_is_refused(spec: Make, tmp_path: Path) -> None:
    """By what is missing."""
    with pytest.raises(InputError, match=r"has no genai_config\.json.*models\.builder"):
        load(spec(tmp_path, engine="onnx"))
    config = tmp_path / "genai_config.json"
    model = {"context_length": 64, "vocab_size": 0, "decoder": {"filename": "model.onnx"}}
    config.write_text(json.dumps({"model": model}))
    with pytest.raises(InputError, match="vocab_size must be a positive number"):
        load(spec(tmp_path, engine="onnx"))
    config.write_text(json.dumps({"model": model | {"vocab_size": 5}}))
    with pytest.raises(InputError, match=r"names .model\.onnx., which is not there"):
        load(spec(tmp_path, engine="onnx"))
    for name in ("../x.onnx", "/etc/passwd"):
        outside = model | {"vocab_size": 5, "decoder": {"filename": name}}
        config.write_text(json.dumps({"model": outside}))
        with pytest.raises(InputError, match="is not there"):
            load(spec(tmp_path, engine="onnx"))
