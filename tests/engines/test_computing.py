"""`dtype: auto` takes what the processor is made for, and says so where that is another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evalharness.engines import computing
from evalharness.engines.computing import computing_dtype, remark, stored_dtype
from evalharness.engines.loading import load
from tests.engines.conftest import NF4, Make, tiny, write_gguf

CPU = torch.device("cpu")
OLD = frozenset({"fma", "avx2", "avx512f", "avx512_vnni"})


@pytest.fixture(autouse=True)
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU of before 2020, unless a test says otherwise."""
    monkeypatch.setattr(computing, "cpu_flags", lambda: OLD)


def flagged(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(computing, "cpu_flags", lambda: OLD | set(flags))


def stored(folder: Path, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_auto_is_float32_without_instructions(saved: Path, spec: Make) -> None:
    """The model is computed in it, holds the same numbers, and the manifest says so."""
    got = load(spec(saved))
    assert got.manifest.dtype == "float32"
    assert {p.dtype for p in got.model.parameters()} == {torch.float32}
    original = dict(tiny().named_parameters())
    assert all(torch.equal(p, original[n].float()) for n, p in got.model.named_parameters())


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16", "svebf16"])
def test_auto_is_the_files_with_instructions(
    saved: Path, spec: Make, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of x86 and of Arm."""
    flagged(monkeypatch, flag)
    assert computing_dtype(spec(saved), saved, CPU) == "auto"
    assert remark(spec(saved), saved, CPU) is None


def test_instructions_for_one_half_are_none_for_the_other(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 would lose digits of float16, and is not taken in its place."""
    flagged(monkeypatch, "avx512_bf16")
    place = stored(tmp_path, torch_dtype="float16")
    assert computing_dtype(spec(place), place, CPU) == "float32"


def test_a_gpu_is_left_alone(saved: Path, spec: Make) -> None:
    """What the CPU beside it has does not matter."""
    assert computing_dtype(spec(saved), saved, torch.device("cuda", 0)) == "auto"


@pytest.mark.parametrize(("flags", "dtype"), [((), "float32"), (("amx_bf16",), "bfloat16")])
def test_a_gguf_file_is_computed_in_what_is_fast(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], dtype: str
) -> None:
    """Its codes have no dtype of their own."""
    pytest.importorskip("gguf")
    flagged(monkeypatch, *flags)
    file = tmp_path / "m.gguf"
    write_gguf(file, tiny())
    assert load(spec(file)).manifest.dtype == dtype


def test_what_is_quantised_keeps_its_kernels(saved: Path, spec: Make, tmp_path: Path) -> None:
    """By the model file or by the checkpoint."""
    assert computing_dtype(spec(saved, quantization=NF4), saved, CPU) == "auto"
    place = stored(tmp_path, dtype="bfloat16", quantization_config={"quant_method": "gptq"})
    assert computing_dtype(spec(place), place, CPU) == "auto"


def test_an_explicit_dtype_is_honoured_and_warned_about(saved: Path, spec: Make) -> None:
    """With what it costs."""
    asked = spec(saved, dtype="bfloat16")
    assert computing_dtype(asked, saved, CPU) == "bfloat16"
    assert remark(asked, saved, CPU) == (
        "dtype: bfloat16 was asked for, and this CPU has no matrix instructions for it: it takes "
        "3.7 times as long as float32, which dtype: auto chooses here"
    )


def test_the_choice_is_said(saved: Path, spec: Make) -> None:
    """Only where it is another than that of the files."""
    assert remark(spec(saved), saved, CPU) == (
        "dtype: auto computes in float32: this CPU has no matrix instructions for bfloat16, which "
        "would take 3.7 times as long"
    )
    assert remark(spec(saved, dtype="float32"), saved, CPU) is None


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"text_config": {"dtype": "float32"}}, "float32"),
        ({"dtype": "float8_e4m3fn"}, "auto"),
        ({}, "auto"),
    ],
)
def test_the_stored_dtype_is_read_from_the_configuration(
    tmp_path: Path, config: dict[str, object], dtype: str
) -> None:
    """Under its earlier name as well."""
    assert stored_dtype(stored(tmp_path, **config)) == dtype
