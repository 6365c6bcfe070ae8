"""What a repair is written as."""

from __future__ import annotations

from typing import Any

from evalharness.bisect.keep_lists import keep_lists, repair_spec
from evalharness.spec.model import ModelSpec


def test_keep_lists_speak_each_tools_syntax() -> None:
    lists = keep_lists(["model.layers.0.mlp.up_proj"])
    assert lists["transformers"] == {"modules_to_not_convert": ["model.layers.0.mlp.up_proj"]}
    assert lists["llm-compressor"] == {"ignore": ["model.layers.0.mlp.up_proj"]}
    assert lists["auto-round"] == {"layer_config": {"model.layers.0.mlp.up_proj": {"bits": 16}}}
    assert lists["torchao"]["FqnToConfig"] == {"model.layers.0.mlp.up_proj": None}
    import torch

    keep = eval(lists["torchao"]["filter_fn"], {"torch": torch})
    linear = torch.nn.Linear(2, 2)
    assert not keep(linear, "model.layers.0.mlp.up_proj")
    assert keep(linear, "model.layers.0.mlp.down_proj")


def spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "c", "model": {"path": "org/name"}, **more})


def test_a_repair_is_said_in_the_candidates_own_terms() -> None:
    """Exclude globs, transformers' skip lists (with the head they leave alone), or nothing."""
    simulated = spec(simulate={"weights": {"bits": 4, "granularity": "channel", "exclude": ["a"]}})
    made, why = repair_spec(simulated, ["a", "b"], "lm_head")
    assert made is not None
    assert made.simulate is not None
    assert (made.name, why) == ("c-repaired", "")
    assert made.simulate.weights.exclude == ("a", "b")
    made, why = repair_spec(simulated, ["a", "b"], "lm_head", every=True)
    assert made is None  # a simulation of nothing is refused on loading
    assert "what is left is the reference" in why
    for method, key in (
        ("bitsandbytes", "llm_int8_skip_modules"),
        ("torchao", "modules_to_not_convert"),
    ):
        made, _ = repair_spec(spec(quantization={"method": method}), ["b"], "lm_head")
        assert made is not None
        assert made.quantization is not None
        assert made.quantization[key] == ["lm_head", "b"]
    made, why = repair_spec(spec(), ["b"], "lm_head")
    assert made is None
    assert "compress it again with one of the keep-lists" in why
