"""``adapter:`` of a model file: merged, or added unmerged to a quantised model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalharness.compat.silence import quiet
from evalharness.engines.adapter_base import check_base
from evalharness.engines.hub import Resolved
from evalharness.engines.loading import load
from evalharness.errors import InputError
from tests.engines.conftest import (
    NF4,
    Make,
    byte_tokenizer,
    logits,
    refused,
    rewrite,
    tiny,
)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of q and v with random, non-zero weights."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    path = tmp_path_factory.mktemp("adapter")
    with quiet():
        peft.get_peft_model(tiny(), config).save_pretrained(path)
    return path


def peft_logits(adapter: Path, dtype: torch.dtype) -> torch.Tensor:
    """Oracle: PEFT's own unmerged forward pass."""
    from peft import PeftModel

    with quiet():
        model = PeftModel.from_pretrained(tiny(dtype=dtype), str(adapter))
    return logits(model.eval())


def test_an_adapter_is_merged_and_names_stay(saved: Path, adapter: Path, spec: Make) -> None:
    """The same modules as the base, and in float32 the logits of the unmerged model."""
    base = load(spec(saved, dtype="float32"))
    got = load(spec(saved, dtype="float32", adapter=str(adapter)))
    assert [n for n, _ in got.model.named_modules()] == [n for n, _ in base.model.named_modules()]
    assert type(got.model) is type(base.model)
    torch.testing.assert_close(
        logits(got.model), peft_logits(adapter, torch.float32), atol=1e-4, rtol=0
    )
    assert not torch.allclose(logits(got.model), logits(base.model), atol=1e-2)
    assert got.messages == (f"m: LORA adapter merged into the weights ({adapter})",)
    assert got.manifest.source == f"{saved} + adapter {adapter}"
    assert got.manifest.parameters == base.manifest.parameters
    assert got.manifest.format == "float32; adapter merged into them"
    files = [saved / "model.safetensors", adapter / "adapter_model.safetensors"]
    assert got.manifest.weight_bytes is not None
    assert 0 < sum(f.stat().st_size for f in files) - got.manifest.weight_bytes < 20_000


def test_an_adapter_on_a_quantised_model_stays_unmerged(
    saved: Path, adapter: Path, spec: Make
) -> None:
    """As QLoRA is served; the adapted modules keep their names."""
    pytest.importorskip("bitsandbytes")
    got = load(spec(saved, quantization=NF4, adapter=str(adapter)))
    assert any("added unmerged" in m for m in got.messages)
    assert "; adapter beside them, " in got.manifest.format
    assert "model.layers.0.self_attn.q_proj" in dict(got.model.named_modules())
    base = load(spec(saved, quantization=NF4))
    change = logits(got.model) - logits(base.model)
    expected = peft_logits(adapter, torch.bfloat16) - logits(tiny())
    assert float((change - expected).abs().max()) < 0.2 * float(expected.abs().max())


def test_an_adapter_of_another_model_is_refused(adapter: Path, spec: Make, tmp_path: Path) -> None:
    """Other shapes, or other modules."""
    tiny(hidden=32).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    message = refused(spec(tmp_path, adapter=str(adapter)))
    assert message.startswith(f"adapter: the adapter in {adapter} does not fit LlamaForCausalLM (")


def test_an_adapter_with_missing_weights_is_refused(
    saved: Path, adapter: Path, spec: Make, tmp_path: Path
) -> None:
    """PEFT would leave them as initialised and warn."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    kept = {k: v for k, v in tensors.items() if "layers.1" not in k}
    save_file(kept, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    assert f"the adapter in {tmp_path} lacks 4 of its weights: " in refused(
        spec(saved, adapter=str(tmp_path))
    )


def of_base(adapter: Path, path: Path, base: object) -> str:
    """A copy of the adapter whose configuration names ``base``."""
    shutil.copytree(adapter, path, dirs_exist_ok=True)
    config = json.loads((path / "adapter_config.json").read_text())
    changed = json.dumps(config | {"base_model_name_or_path": base})
    (path / "adapter_config.json").write_text(changed)
    return str(path)


def test_an_adapter_of_another_base_is_refused(
    saved: Path, copy: Path, adapter: Path, spec: Make, tmp_path: Path
) -> None:
    """It would fit: only its configuration says that it is not for these weights."""
    other = of_base(adapter, tmp_path / "adapter", str(copy))
    assert load(spec(saved, adapter=other)).anomalies == ()  # a copy of the same weights
    rewrite(copy, lambda t: t.update({n: v + 1 for n, v in t.items()}))
    message = refused(spec(saved, adapter=other))
    assert message.startswith(f"adapter: {other}/adapter_config.json says that the adapter was")
    assert message.count("adapter_base: ") == 1
    load(spec(saved, adapter=other, adapter_base=str(copy)))


@pytest.mark.parametrize(
    ("base", "found", "same"),
    [
        ("org/a", Resolved("hub", hub_id="org/a"), True),
        ("org/a", Resolved("hub", hub_id="Org/A"), True),
        ("org/a", Resolved("hub", hub_id="org/b"), False),
        ("org/a", Resolved("directory", path=Path("/models/a")), True),
        ("org/a", Resolved("directory", path=Path("/hub/models--org--a/snapshots/1")), True),
        ("org/a", Resolved("directory", path=Path("/models/b")), None),
        ("/nowhere/a", Resolved("hub", hub_id="org/a"), None),
    ],
)
def test_a_base_is_known_by_its_name(
    base: str, found: Resolved, same: bool | None, adapter: Path, spec: Make, tmp_path: Path
) -> None:
    """Refused where it is another, said where the names do not tell."""
    place, model = Path(of_base(adapter, tmp_path, base)), spec("org/x")
    if same is False:
        with pytest.raises(InputError, match="is another model"):
            check_base(place, model, found)
    else:
        assert (check_base(place, model, found) is None) == bool(same)


def test_a_base_that_is_no_name_is_refused(
    saved: Path, adapter: Path, spec: Make, tmp_path: Path
) -> None:
    """With what stands there."""
    message = refused(spec(saved, adapter=of_base(adapter, tmp_path, [1])))
    assert "base_model_name_or_path must be text (got [1])" in message
