"""A head that shares the embedding's weight: nothing writes into both, nothing ties over a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evalharness.compat import transformers as compat
from evalharness.compat.silence import quiet
from evalharness.engines.loading import load
from tests.engines.conftest import Make, byte_tokenizer, logits, rewrite, tiny, write_gguf


def save(path: Path, *, tied: bool) -> Path:
    """A tiny model in float32."""
    tiny(tied=tied, dtype=torch.float32).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def claim_tied(path: Path) -> None:
    """Have config.json say that the head is the embedding."""
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))


@pytest.mark.parametrize(
    "targets", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]], ids=str
)
def test_an_adapter_writes_into_its_own_layer_alone(
    targets: list[str], spec: Make, tmp_path: Path
) -> None:
    """Merged into a tied model it computes what PEFT computes unmerged, and stays untied."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    with quiet():
        wrapped = peft.get_peft_model(tiny(tied=True, dtype=torch.float32), config)
        wrapped.save_pretrained(tmp_path / "adapter")
    expected = logits(wrapped.eval())
    model = load(spec(save(tmp_path / "model", tied=True), adapter=str(tmp_path / "adapter"))).model
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)
    model.tie_weights()
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


def test_a_head_that_was_tied_over_its_own_tensor_is_an_anomaly(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader that ties as config.json says measures another model than the files hold."""
    path = save(tmp_path, tied=False)
    claim_tied(path)
    plain = compat.load_causal_model

    def tying(*args: object, **options: object) -> compat.Loading:
        loading = plain(*args, **options)  # type: ignore[arg-type]
        loading.model.lm_head.weight = loading.model.model.embed_tokens.weight
        return loading

    monkeypatch.setattr("evalharness.engines.transformers.load_causal_model", tying)
    (said,) = load(spec(path)).anomalies
    assert said.startswith(f"m: lm_head.weight in {path} was replaced by the embedding on loading")


@pytest.mark.parametrize("same", [False, True])
def test_a_gguf_file_whose_head_was_tied_over_is_an_anomaly(
    same: bool, spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its head is a copy of the embedding."""
    model = tiny()
    if same:
        model.lm_head.weight.data = model.model.embed_tokens.weight.data.clone()
    write_gguf(tmp_path / "m.gguf", model, "Q8_0")
    plain = compat.load_causal_model

    def tying(*args: object, **options: object) -> compat.Loading:
        loading = plain(*args, **options)  # type: ignore[arg-type]
        loading.model.lm_head.weight = loading.model.model.embed_tokens.weight
        return loading

    got = load(spec(tmp_path / "m.gguf")).anomalies
    assert got == ()
    monkeypatch.setattr("evalharness.engines.transformers.load_causal_model", tying)
    said = load(spec(tmp_path / "m.gguf")).anomalies
    assert [text.partition(" was replaced")[0] for text in said] == (
        [] if same else [f"m: output.weight in {tmp_path / 'm.gguf'}"]
    )


def test_a_head_of_its_own_stays_its_own(spec: Make, tmp_path: Path) -> None:
    """Whatever config.json says; and a copy of the embedding in the file is no anomaly."""
    path = save(tmp_path / "own", tied=False)
    claim_tied(path)
    got = load(spec(path))
    assert got.anomalies == ()
    got.model.tie_weights()
    assert torch.equal(logits(got.model), logits(tiny(dtype=torch.float32)))
    path = save(tmp_path / "copy", tied=True)
    rewrite(path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert load(spec(path)).anomalies == ()
