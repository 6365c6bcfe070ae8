"""Tasks scored by lm-eval's HFLM and packed, on models of several architectures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import tiny_tokenizer
from tests.pair.tasks.lm_sides import prepare


def architecture(name: str, seed: int = 0, **options: Any) -> Any:
    """A tiny random model of one of transformers' architectures."""
    import torch
    import transformers as hf

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 300,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    config: Any = {
        "gpt2": lambda: hf.GPT2Config(
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=1024,
            vocab_size=300,
            bos_token_id=None,
            eos_token_id=0,
        ),
        "bloom": lambda: hf.BloomConfig(
            hidden_size=32, n_layer=2, n_head=4, vocab_size=300, bos_token_id=None, eos_token_id=0
        ),
        "mamba": lambda: hf.MambaConfig(
            hidden_size=32, num_hidden_layers=2, vocab_size=300, state_size=4, eos_token_id=0
        ),
        "qwen2": lambda: hf.Qwen2Config(**(sizes | options)),
        "mistral": lambda: hf.MistralConfig(**(sizes | options)),
        "gemma2": lambda: hf.Gemma2Config(**(sizes | options)),
        "phi": lambda: hf.PhiConfig(**(sizes | options)),
    }[name]()
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed_positions" not in key:
                parameter.mul_(4)
    return SimpleNamespace(
        name=f"{name}{seed}", model=model, tokenizer=tiny_tokenizer(), device=torch.device("cpu")
    )


def both_ways(reference: Any, candidate: Any, *names: str, **options: Any) -> tuple[Any, Any]:
    """Runs of the same tasks by lm-eval's HFLM and packed, with the sides' samples kept."""
    import evalharness.pair.tasks.run as module
    from evalharness.pair.tasks.packed_lm import PackedScorer

    runs = []
    takes = PackedScorer.takes
    for way in (lambda *_: False, takes):
        kept: list[Any] = []
        real = module.pair_samples
        PackedScorer.takes = way  # type: ignore[method-assign]

        def keep(task: Any, a: Any, b: Any, kept: Any = kept, real: Any = real) -> Any:
            kept.extend((a, b))
            return real(task, a, b)

        module.pair_samples = keep
        try:
            found = list(
                module.run_tasks(reference, candidate, prepare(*names, **options), batch_size=3)
            )
        finally:
            module.pair_samples, PackedScorer.takes = real, takes  # type: ignore[method-assign]
        runs.append((found, kept))
    return runs[0], runs[1]


def assert_same(plain: Any, packed: Any, tolerance: float = 1e-3) -> None:
    """Equal answers, scores and frames, log-likelihoods to ``tolerance`` nats."""
    for theirs, ours in zip(plain[1], packed[1], strict=True):
        for a, b in zip(theirs.samples, ours.samples, strict=True):
            for (x,), (y,) in zip(a["resps"], b["resps"], strict=True):
                if isinstance(x, tuple):
                    assert abs(x[0] - y[0]) <= tolerance
                    assert x[1] == y[1]
                else:
                    assert abs(x - y) <= tolerance
    for one, other in zip(plain[0], packed[0], strict=True):
        close = ["score_ref", "score_cand", "conf_ref", "conf_cand"]
        answers = ["answer_ref", "answer_cand"] if one.task not in ("read", "finish") else []
        drop = [*close, *([] if answers else ["answer_ref", "answer_cand"])]
        pd.testing.assert_frame_equal(one.frame.drop(columns=drop), other.frame.drop(columns=drop))
        np.testing.assert_allclose(one.frame[close], other.frame[close], atol=tolerance)
        for x, y in zip(one.scores, other.scores, strict=True):
            assert x.reference == pytest.approx(y.reference, rel=1e-4)
            if "acc" in x.metric:
                assert x == y
