"""Texts, tasks and the noise floor against single unpadded float64 passes, an architecture a row.

    python benchmarks/exactness.py [--only dynamic]

Tiny random models with local, chunked, dynamic-rotary, ALiBi, recurrent and soft-capped layers, in
float32. Windows and requests reach past every local window and every original length. The right
value is one row at a time, unpadded, through a fresh copy of the model in float64. Exit 1 where a
negative log-likelihood is off by more than 1e-5 of itself, or a model differs from itself.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers as hf
from torch import Tensor

from evalharness.compat.silence import quiet
from evalharness.data.documents import Document
from evalharness.data.windows import Window, cut
from evalharness.engines.base import LoadedModel
from evalharness.pair.side import Side
from evalharness.pair.tasks.packed_lm import PackedScorer
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.spec.suite import NoiseFloor, Suite
from evalharness.workflow.noise_floor import noise_floor

EXACT = 1e-5
VOCABULARY = 300
LOCAL, ORIGINAL = 24, 48  # tokens: of a local window; of the length a rotary table is made for

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "vocab_size": VOCABULARY,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_SHORT = _SIZES | {"max_position_embeddings": ORIGINAL}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": ORIGINAL,
    "factor": 4.0,
}

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "full (Llama)": lambda: hf.LlamaConfig(**_SIZES),
    "local (Mistral)": lambda: hf.MistralConfig(**_SIZES, sliding_window=LOCAL),
    "local by another key (GPT-Neo)": lambda: hf.GPTNeoConfig(
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        attention_types=[[["global", "local"], 2]],
        window_size=LOCAL,
        bos_token_id=None,
        eos_token_id=0,
    ),
    "local and soft-capped (Gemma 2)": lambda: hf.Gemma2Config(
        **_SIZES,
        sliding_window=LOCAL,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
        attn_implementation="eager",
    ),
    "local and full (Gemma 3)": lambda: hf.Gemma3TextConfig(**_SIZES, sliding_window=LOCAL),
    "chunked (Llama 4)": lambda: hf.Llama4TextConfig(
        **_SIZES,
        attention_chunk_size=LOCAL,
        num_local_experts=4,
        num_experts_per_tok=1,
        intermediate_size_mlp=64,
    ),
    "dynamic rotary (Qwen2)": lambda: hf.Qwen2Config(
        **_SHORT, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    ),
    "long rotary (Phi-3)": lambda: hf.Phi3Config(
        **(_SIZES | {"original_max_position_embeddings": ORIGINAL}), rope_parameters=_LONGROPE
    ),
    "ALiBi (BLOOM)": lambda: hf.BloomConfig(
        hidden_size=32, n_layer=4, n_head=4, vocab_size=VOCABULARY, bos_token_id=None
    ),
    "ALiBi (MPT)": lambda: hf.MptConfig(
        d_model=32, n_heads=4, n_layers=4, vocab_size=VOCABULARY, max_seq_len=512
    ),
    "recurrent (Mamba)": lambda: hf.MambaConfig(
        hidden_size=32, num_hidden_layers=4, vocab_size=VOCABULARY, state_size=4
    ),
    "recurrent and local (RecurrentGemma)": lambda: hf.RecurrentGemmaConfig(
        **(_SIZES | {"num_hidden_layers": 3}), attention_window_size=LOCAL, lru_width=32
    ),
    "learned positions (GPT-2)": lambda: hf.GPT2Config(
        n_embd=32, n_layer=4, n_head=4, n_positions=512, vocab_size=VOCABULARY, bos_token_id=None
    ),
}


def tokenizer() -> Any:
    """Words for ids."""
    words = tokenizers.models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t1")
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), eos_token="t0", pad_token="t0"
    )


@dataclass(frozen=True)
class Found:
    """Of one architecture: relative errors of the negative log-likelihood, and words."""

    texts: dict[int, float]  # by batch size
    tasks: float
    packed: bool
    floor: float  # KL in nats a token
    itself: float  # the largest KL between the model and itself
    notes: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether all of it is right."""
        errors = (*self.texts.values(), self.tasks, self.floor)
        return max(errors) <= EXACT and self.itself == 0.0


def model(name: str, seed: int = 0) -> Any:
    """A tiny random model whose predictions are far from uniform."""
    torch.manual_seed(seed)
    made = hf.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval()
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if parameter.ndim == 2 and "position" not in key and "wpe" not in key:
                # A scan in float32 rounds by more than 1e-5 where its inputs are that large.
                parameter.mul_(2 if "Mamba" in name else 4)
    return made.requires_grad_(False)


def measure(name: str) -> Found:
    """Hold everything that is measured on an architecture against float64."""
    made = model(name)
    fresh = copy.deepcopy(made)
    loaded: Any = LoadedModel(name, made, tokenizer(), torch.device("cpu"), manifest=None)  # type: ignore[arg-type]
    side = Side(loaded)
    documents = _documents()
    windows = cut(documents, _suite(), None)
    right = _right_texts(fresh, windows)
    texts, itself = {}, 0.0
    # Twice with the small batch: what the larger one leaves behind must not show.
    for size in (1, 4, 1):
        work = TokenPass(side, side, documents, batch_size=size, probe=None)
        frame = work.run(windows)["tokens"].to_pandas()
        ours = frame.sort_values(["window", "position"])["nll_ref"].to_numpy()
        texts[size] = max(texts.get(size, 0.0), _error(ours, right))
        itself = max(itself, float(frame["kl"].max()), float(frame["max_abs"].max()))
    floor = noise_floor(side, documents, windows, 4, NoiseFloor(windows=len(windows)))
    requests = _requests()
    scorer = PackedScorer(loaded, loaded, batch_size=3, max_length=512, answered=lambda n: None)
    answers = [lm._loglikelihood_tokens(requests, disable_tqdm=True) for lm in scorer.lms]
    keys = [(tuple(c), tuple(k)) for _, c, k in requests]
    positions = scorer.paired.positions([(0, key) for key in keys])
    if positions:
        itself = max(itself, float(positions["kl"].max()))
    itself = max(itself, max(abs(a[0] - b[0]) for a, b in zip(*answers, strict=True)))
    tasks = _error(np.array([a[0] for a in answers[0]]), _right_tasks(fresh, requests))
    why = side.alone_because(max(len(w.ids) for w in windows))
    notes = tuple(dict.fromkeys((*((why,) if why else ()), *scorer.notes)))
    return Found(texts, tasks, bool(positions), floor.values["kl.mean"], itself, notes)


def _documents() -> list[Document]:
    random = np.random.default_rng(0)
    lengths = (17, 90, 40, 63, 49, 96, 30, 71)
    return [
        Document(i, "c", f"d{i}", random.integers(1, VOCABULARY, n), None, {})
        for i, n in enumerate(lengths)
    ]


def _suite() -> Suite:
    corpora = [{"name": "c", "source": "python:x"}]
    return Suite.model_validate({"name": "s", "corpora": corpora, "window": {"tokens": 96}})


def _requests() -> list[tuple[None, list[int], list[int]]]:
    """Prompts of several lengths on one prefix, with four answers each."""
    random = np.random.default_rng(1)

    def draw(count: int) -> list[int]:
        return [int(i) for i in random.integers(1, VOCABULARY, count)]

    prefix, found = draw(40), []
    for length in (5, 30, 52, 11):
        context = prefix + draw(length)
        found += [(None, context, draw(3)) for _ in range(4)]
    return found


def _right_texts(fresh: Any, windows: list[Window]) -> np.ndarray[Any, Any]:
    rows = []
    for window in windows:
        z = _alone(fresh, torch.from_numpy(window.ids))[window.first : window.last]
        target = torch.from_numpy(window.ids)[window.first + 1 : window.last + 1]
        rows.append(torch.nn.functional.cross_entropy(z, target, reduction="none"))
    return torch.cat(rows).numpy()


def _right_tasks(fresh: Any, requests: list[tuple[None, list[int], list[int]]]) -> Any:
    found = []
    for _, context, answer in requests:
        # lm-eval does not feed the last token, whose logits nobody reads.
        z = _alone(fresh, torch.tensor(context + answer[:-1]))[len(context) - 1 :]
        log_p = z.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])
        found.append(float(log_p.sum()))
    return np.array(found)


@torch.inference_mode()
def _alone(fresh: Any, ids: Tensor) -> Tensor:
    """Logits of one row, by a copy that has seen no other, in float64."""
    logits: Tensor = copy.deepcopy(fresh).double()(input_ids=ids[None], use_cache=False).logits[0]
    return logits.double()


def _error(ours: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    return float((np.abs(ours - right) / np.maximum(1.0, np.abs(right))).max())


def main() -> int:
    """Print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", default="", help="architectures whose name holds this")
    only = options.parse_args().only
    print(f"{'architecture':38} {'texts 1':>8} {'texts 4':>8} {'tasks':>8} {'floor':>8} itself")
    wrong = 0
    for name in ARCHITECTURES:
        if only not in name:
            continue
        with quiet():
            found = measure(name)
        wrong += not found.exact
        print(
            f"{name:38} {found.texts[1]:8.1e} {found.texts[4]:8.1e} {found.tasks:8.1e} "
            f"{found.floor:8.1e} {found.itself:g}" + ("" if found.exact else "  WRONG")
        )
        for note in found.notes:
            print(f"    {note}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
