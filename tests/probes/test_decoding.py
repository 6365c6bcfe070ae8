"""In which order the sides are timed, and what is timed of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.engines.loading import load
from evalharness.pair.side import Side
from evalharness.probes import decoding
from evalharness.probes.decoding import CannotDecode, time_both, turns
from evalharness.probes.latency import request
from evalharness.run.records import TIMINGS
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import LatencySettings
from tests.conftest import tiny_tokenizer


def order(batches: int, process: int = 1) -> str:
    """All turns of a process, r and c."""
    return "".join(name[0] for n in range(batches) for name in turns(n, process))


def test_batches_go_there_and_back_and_every_second_one_begins_with_the_other_side() -> None:
    """The sequence of Thue and Morse; an even process exchanges the sides."""
    assert order(4) == "rccrcrrccrrcrccr"
    assert order(2, process=2) == "crrcrccr"
    assert order(2, process=3) == order(2)


@pytest.mark.parametrize(("batches", "power"), [(1, 1), (2, 2), (4, 3), (8, 4)])
def test_a_drift_takes_as_long_from_either_side(batches: int, power: int) -> None:
    """Sums of t^p over the turns of both are equal: to p = 1 in every batch, and more over more."""
    names = np.array(list(order(batches)))
    at = np.arange(names.size, dtype=object)  # exact
    for p in range(power + 1):
        assert (at[names == "r"] ** p).sum() == (at[names == "c"] ** p).sum()


def test_over_eight_batches_either_side_follows_the_other_as_often_as_it_follows_itself() -> None:
    """To one: what the turn before leaves in a cache favours neither."""
    names = order(8)
    after = [a + b for a, b in itertools.pairwise(names)]
    assert abs(after.count("rc") - after.count("cr")) <= 1
    assert abs(after.count("rr") - after.count("cc")) <= 1


def test_each_turn_is_one_prefill_and_so_many_steps(
    side: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that counts calls of the models: two turns a side and batch are added up."""
    reference, candidate = side(0), side(1)
    calls: list[tuple[str, tuple[int, ...]]] = []
    for name, one in (("r", reference), ("c", candidate)):
        one.model.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: calls.append(
                (name, tuple(kwargs["input_ids"].shape))
            ),
            with_kwargs=True,
        )
    monkeypatch.setattr(decoding.time, "perf_counter", lambda: float(len(calls)))
    batches = [[[1, 2, 3], [4, 5, 6]], [[7, 8], [9, 10]]]
    rows = time_both(reference, candidate, batches, 5, 3, lambda said: None).to_pylist()
    prompts = [(name, shape) for name, shape in calls if shape[1] > 1]
    warm = [(name, shape) for shape in ((2, 3), (2, 2)) for name in "rccr"]  # of every shape
    assert prompts[:8] == warm
    assert "".join(name for name, _ in prompts[8:]) == "rccrcrrc"
    assert rows[:2] == [
        {"kind": "prefill", "process": 3, "tokens": 12, "seconds_ref": 2.0, "seconds_cand": 2.0},
        {"kind": "decode", "process": 3, "tokens": 20, "seconds_ref": 10.0, "seconds_cand": 10.0},
    ]
    assert rows[2]["tokens"] == 8
    assert list(rows[0]) == TIMINGS.names


def asked(windows: list[int], **settings: Any) -> Any:
    """The prompts of windows of these lengths."""

    class Window:
        def __init__(self, number: int, size: int) -> None:
            self.ids = np.full(size, number)

    class Run:
        pass

    run: Any = Run()
    run.windows = [Window(n, size) for n, size in enumerate(windows)]
    run.settings = LatencySettings.model_validate(settings)
    return request(run)


def test_prompts_are_beginnings_of_texts_all_of_one_length() -> None:
    """Of those that are long enough, again where there are too few; else as long as the longest."""
    found = asked([5, 3, 9], batches=3, batch_size=1, prompt_tokens=4, steps=7)
    assert found == {"batches": [[[0] * 4], [[2] * 4], [[0] * 4]], "steps": 7}
    found = asked([5, 3, 5], batches=1, batch_size=2, prompt_tokens=9, steps=7)
    assert found == {"batches": [[[0] * 5, [2] * 5]], "steps": 7}
    assert asked([], batches=2) is None


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mamba", {"state_size": 4}),
        ("mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}),
    ],
)
def test_a_model_with_a_state_goes_on_from_it(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """One more step from the cache gives what the whole text gives."""
    import torch

    one = saved(kind, tmp_path, **settings)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        out = one.model(input_ids=ids[:, :3], use_cache=True)
        last = one.model(input_ids=ids[:, 3:], use_cache=True, **decoding._cache(one, out)).logits
        whole = one.model(input_ids=ids).logits
    assert torch.allclose(last[:, -1], whole[:, -1], atol=1e-5)


def test_a_model_that_keeps_nothing_is_said_to_be_none_that_can_be_timed(tmp_path: Path) -> None:
    """By its class, rather than as an attribute that is missing."""
    one = saved("rwkv", tmp_path, attention_hidden_size=32)
    with pytest.raises(CannotDecode, match="m: RwkvForCausalLM returns nothing to go on decoding"):
        time_both(one, one, [[[1, 2, 3]]], 2, 1, lambda said: None)


def saved(kind: str, path: Path, **settings: Any) -> Side:
    """A random model of two layers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, vocab_size=300, hidden_size=32, num_hidden_layers=2, **settings
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    model = {"path": str(path), "device": "cpu", "dtype": "float32"}
    return Side(load(ModelSpec.model_validate({"name": "m", "model": model})))
