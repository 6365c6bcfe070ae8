"""A model of another engine in the shape of transformers': places, logits, generation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.data.documents import Document
from evalharness.data.windows import cut
from evalharness.engines import native_model
from evalharness.engines.native_model import Sequences
from evalharness.errors import RunError
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.spec.suite import Suite
from tests.engines.numpy_driver import VOCABULARY, table
from tests.engines.toy import InProcess, logits, native

Ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30)


def test_a_batch_with_padding_has_the_toys_own_logits() -> None:
    """Bit for bit at every real position, whatever the order and the pieces it is asked in."""
    side = Side(native(chunk=4))
    assert side.streams
    assert side.split
    assert side.vocab_size == VOCABULARY
    rows = [list(range(3, 3 + n)) for n in (13, 4, 9)]
    batch = torch.zeros(3, 13, dtype=torch.long)
    for i, ids in enumerate(rows):
        batch[i, : len(ids)] = torch.tensor(ids)
    places = side.hidden(batch, [len(r) for r in rows])
    expected = torch.cat([torch.from_numpy(table(ids)) for ids in rows])
    scored = torch.cat([places[i, : len(ids)] for i, ids in enumerate(rows)])
    for size in (1, 5, 26):
        found = torch.cat([side.logits(scored[i : i + size]) for i in range(0, 26, size)])
        assert torch.equal(found, expected)
    order = torch.randperm(26, generator=torch.Generator().manual_seed(0))
    assert torch.equal(side.logits(scored[order]), expected[order])
    assert torch.equal(side.logits(scored[[3, 3, 25, 3]]), expected[[3, 3, 25, 3]])


def test_nothing_is_fed_before_it_is_asked_for_and_nothing_twice() -> None:
    """Pieces of a window go on where the last one ended, and begin where the first is scored."""
    loaded = native(chunk=4)
    side, begun = Side(loaded), loaded.model.runner.begun
    begun.clear()
    places = side.hidden(torch.arange(1, 41)[None])
    assert begun == []
    for start in range(20, 40, 5):
        side.logits(places[0, start : start + 5])
    assert begun == [(list(range(1, 41)), 20, 4)]


@settings(max_examples=30)
@given(st.lists(Ids, min_size=1, max_size=3), st.integers(1, 9), st.data())
def test_rows_come_in_any_order_of_any_sequences(
    sequences: list[list[int]], chunk: int, data: st.DataObject
) -> None:
    """Interleaved, in chunks of the engine's or others, forwards and back."""
    held = Sequences(InProcess(chunk))
    others = [data.draw(st.one_of(st.none(), st.integers(1, 9))) for _ in sequences]
    numbers = [held.add(ids, other) for ids, other in zip(sequences, others, strict=True)]
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(sequences) - 1))
        asked = data.draw(
            st.lists(st.integers(0, len(sequences[at]) - 1), min_size=1, unique=True).map(sorted)
        )
        found = held.logits(numbers[at], asked)
        np.testing.assert_array_equal(found, table(sequences[at])[asked])
    held.close()


def test_another_chunk_is_the_engines_to_know() -> None:
    """The noise floor asks for it."""
    loaded = native(chunk=8)
    places = loaded.model.backbone(torch.arange(1, 30)[None], chunk=2).last_hidden_state
    found = loaded.model.head(places)
    assert torch.equal(found[0], torch.from_numpy(table(list(range(1, 30)))))
    assert loaded.model.runner.begun == [(list(range(1, 30)), 0, 2)]


def test_a_place_that_means_nothing_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another model, past the end of its sequence, or of a sequence that was dropped."""
    one, other = native(), native()
    places = one.model.backbone(torch.arange(1, 9)[None]).last_hidden_state
    with pytest.raises(RuntimeError, match="is not remembered"):
        other.model.head(places)
    padded = one.model.backbone(torch.arange(1, 9)[None], lengths=[5]).last_hidden_state
    with pytest.raises(IndexError, match="has no position 5"):
        one.model.head(padded)
    monkeypatch.setattr(native_model, "REMEMBERED", 2)
    for _ in range(2):
        one.model.backbone(torch.arange(1, 9)[None])
    with pytest.raises(RuntimeError, match="is not remembered"):
        one.model.head(places)


def test_masks_and_positions_are_refused() -> None:
    """A packed batch cannot be fed; a mask of ones hides nothing."""
    model = native().model
    ids = torch.arange(1, 9)[None]
    with pytest.raises(TypeError, match="neither masks nor positions"):
        model(ids, position_ids=torch.arange(8)[None])
    with pytest.raises(TypeError, match="neither masks nor positions"):
        model(ids, attention_mask=torch.tensor([[0] + [1] * 7]))
    found = model(ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.equal(found[0], torch.from_numpy(table(ids[0].tolist())))


def greedy(ids: list[int], count: int) -> list[int]:
    """By brute force: the whole sequence for each token."""
    for _ in range(count):
        ids = [*ids, int(table(ids)[-1].argmax())]
    return ids


def test_generation_is_greedy_and_ends_where_it_should() -> None:
    """At the length, at a token that ends it, by a criterion; with padding on the left or not."""
    model = native().model
    prompt = [7, 8, 9]
    whole = greedy(prompt, 20)
    ids = torch.tensor([prompt])
    assert model.generate(ids, max_length=23)[0].tolist() == whole
    assert model.generate(ids, max_length=3)[0].tolist() == prompt
    model.stops = frozenset({whole[10]})
    first = whole.index(whole[10], 3)
    assert model.generate(ids, max_length=23)[0].tolist() == whole[: first + 1]
    model.stops = frozenset()

    def six(found: torch.Tensor, scores: Any) -> torch.Tensor:
        return torch.tensor([found.shape[1] >= 6])

    assert model.generate(ids, max_length=23, stopping_criteria=six)[0].tolist() == whole[:6]
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    padded = torch.tensor([[0, 0, *prompt]])
    found = model.generate(padded, max_length=25, attention_mask=mask)
    assert found[0].tolist() == [0, 0, *whole]
    assert not model.sequences.runner.at_work


def test_generation_between_the_chunks_of_a_window_disturbs_neither() -> None:
    """The engine is stopped first, and begins the window's rest again."""
    model = native(chunk=2).model
    places = model.backbone(torch.arange(1, 21)[None]).last_hidden_state
    first = model.head(places[0, :5])
    assert model.generate(torch.tensor([[7, 8]]), max_length=9)[0].tolist() == greedy([7, 8], 7)
    found = torch.cat([first, model.head(places[0, 5:])])
    assert torch.equal(found, torch.from_numpy(table(list(range(1, 21)))))


@pytest.mark.parametrize(
    "option",
    [
        {"do_sample": True},
        {"num_beams": 4},
        {"repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 3},
        {"min_new_tokens": 5},
        {"suppress_tokens": [3]},
        {"max_new_tokens": 5},
    ],
)
def test_generation_that_is_not_greedy_is_refused(option: dict[str, Any]) -> None:
    """Rather than done in another way than was asked."""
    ((key, value),) = option.items()
    with pytest.raises(RunError) as caught:
        native().model.generate(torch.tensor([[1]]), max_length=9, **option)
    assert f"toy generates greedily here, and a task asks for {key}: {value}" in str(caught.value)


def test_options_that_change_nothing_are_taken() -> None:
    """As lm-eval and its tasks give them."""
    options: dict[str, Any] = {
        "do_sample": False,
        "temperature": 0.0,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "pad_token_id": 0,
        "use_cache": True,
        "min_new_tokens": None,
    }
    found = native().model.generate(torch.tensor([[7, 8]]), max_length=9, **options)
    assert found[0].tolist() == greedy([7, 8], 7)


def test_a_side_that_is_let_go_of_ends_its_engine() -> None:
    """Nothing works after it."""
    side = Side(native())
    side.release()
    assert side.model.runner.closed


def test_numbers_that_are_none_are_anomalies_without_a_module(
    documents: list[Document], suite: Suite
) -> None:
    """Its modules are not at hand, and the window is not fed again, whole, to look for one."""
    sides = Side(native(0)), Side(native(1))
    runner = sides[1].model.runner
    rows = runner.rows

    def broken(ids: list[int], first: int, chunk: int | None = None) -> Any:
        for found in rows(ids, first, chunk):
            yield np.where(np.arange(VOCABULARY) == 17, np.float32("nan"), found)

    runner.rows = broken
    work = TokenPass(*sides, documents, batch_size=3, probe=None)
    found = cut(documents, suite, None)
    runner.begun.clear()
    (row,) = work.run(found)["anomalies"].to_pylist()
    assert row["message"].startswith("toy1: NaN or Inf logits at ")
    assert "module" not in row["message"]
    assert len(runner.begun) == len(found)


@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_the_texts_of_a_native_pair_are_those_of_brute_force(
    documents: list[Document], suite: Suite, chunk: int
) -> None:
    """KL and both NLLs of every scored token, in float64 from the toys' tables."""
    sides = Side(native(0)), Side(native(1, chunk))
    found = cut(documents, suite, None)
    work = TokenPass(*sides, documents, batch_size=3, probe=None)
    rows = work.run(found)["tokens"].to_pandas().sort_values(["doc", "position"])
    expected = {}
    for window in found:
        ids = window.ids.tolist()
        p, q = (logits(ids, seed).log_softmax(-1) for seed in (0, 1))
        for at in range(len(ids) - 1):
            kl = float((p[at].exp() * (p[at] - q[at])).sum())
            nll = [-float(x[at, ids[at + 1]]) for x in (p, q)]
            expected[window.document, window.start + at + 1] = (kl, *nll)
    places = list(zip(rows["doc"], rows["position"], strict=True))
    assert places == sorted(expected)
    columns = rows[["kl", "nll_ref", "nll_cand"]].to_numpy()
    np.testing.assert_allclose(columns, [expected[p] for p in places], rtol=1e-4, atol=1e-5)
