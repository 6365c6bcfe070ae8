"""``quantization:`` of a model file: loaded, measured, and refused where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalharness.engines.loading import load
from tests.engines.conftest import (
    NF4,
    Make,
    byte_tokenizer,
    logits,
    refused,
    tiny,
)

INT8 = {"method": "bitsandbytes", "load_in_8bit": True}
TORCHAO = {"method": "torchao", "quant_type": "int8_weight_only"}
INTX = {
    "method": "torchao",
    "quant_type": "IntxWeightOnlyConfig",
    "weight_dtype": "int4",
    "group_size": 32,
}


@pytest.mark.parametrize(
    ("quantization", "storage"),
    [
        (NF4, "nf4 group 64 (bitsandbytes)"),
        (INT8, "int8 per channel symmetric (bitsandbytes)"),
        (TORCHAO, "int8 per channel (torchao Int8Tensor)"),
        (INTX, "int4 held in 8 bits group 32 (torchao IntxUnpackedToInt8Tensor)"),
    ],
)
@pytest.mark.parametrize("place", ["saved", "gguf_file"])
def test_a_quantiser_of_transformers_works_on_both_kinds_of_file(
    place: str,
    quantization: dict[str, Any],
    storage: str,
    spec: Make,
    request: pytest.FixtureRequest,
) -> None:
    """Measured from the weights; and it runs, near the dense model."""
    pytest.importorskip(quantization["method"])
    path = request.getfixturevalue(place)
    got = load(spec(path, dtype="bfloat16", quantization=quantization))
    assert got.manifest.groups[0].storage == storage
    assert not any(p.requires_grad for p in got.model.parameters())
    assert 0 < float((logits(got.model) - logits(tiny())).abs().max()) < 1


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (
            {**NF4, "bnb_4bit_quant_typ": "nf4"},
            "quantization.bnb_4bit_quant_typ: unknown key. Did you mean 'bnb_4bit_quant_type'",
        ),
        (
            {"method": "bitsandbytes"},
            "quantization: one of load_in_4bit and load_in_8bit must be true",
        ),
        (
            {"method": "torchao", "quant_type": "int8_weight"},
            "quantization.quant_type: unknown torchao scheme 'int8_weight'. "
            "did you mean 'int8_weight_only'",
        ),
        ({**TORCHAO, "group": 3}, "quantization.group: unknown key. "),
        ({**INTX, "weight_dtype": "int99"}, "quantization.weight_dtype: unknown dtype 'int99'"),
        ({**NF4, "bnb_4bit_compute_dtype": 3}, "quantization: bnb_4bit_compute_dtype must be"),
    ],
)
def test_a_wrong_recipe_is_refused(
    saved: Path, spec: Make, quantization: dict[str, Any], message: str
) -> None:
    """transformers logs an unknown key and goes on; a typo must not pass."""
    pytest.importorskip(quantization["method"])
    assert refused(spec(saved, quantization=quantization)).startswith(message)


@pytest.mark.parametrize(("method", "extra"), [("bitsandbytes", "bnb"), ("torchao", "torchao")])
def test_a_missing_library_names_its_extra(
    saved: Path, spec: Make, monkeypatch: pytest.MonkeyPatch, method: str, extra: str
) -> None:
    """The remedy is the command to copy."""
    monkeypatch.setattr("evalharness.engines.quantization_config.find_spec", lambda name: None)
    assert refused(spec(saved, quantization={"method": method})) == (
        f"quantization.method: {method} is not installed. Run: pip install 'evalharness[{extra}]'"
    )


def test_a_scheme_that_the_library_refuses_says_why(
    saved: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers logs the cause in a table and raises without it."""
    torchao = pytest.importorskip("torchao")

    def fail(*_: Any, **__: Any) -> None:
        raise ImportError("Requires mslk >= 1.0.0")

    monkeypatch.setattr(torchao.quantization.Int8Tensor, "from_hp", fail)
    assert refused(spec(saved, quantization=TORCHAO)) == (
        f"quantization: torchao could not quantise {saved} (ImportError: Requires mslk >= 1.0.0). "
        "Use another scheme or device, or install what it asks for."
    )


def test_simulating_on_quantised_weights_is_refused(
    saved: Path, spec: Make, tmp_path: Path
) -> None:
    """There is no float weight left to quantise."""
    pytest.importorskip("bitsandbytes")
    quantised = load(spec(saved, quantization=NF4)).model
    quantised.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    message = refused(spec(tmp_path, simulate={"weights": {"bits": 4, "group_size": 32}}))
    assert message.startswith("simulate: model.layers.0.self_attn.q_proj is quantised already (")
