"""Packed scoring: the trie by hand, the scores against lm-eval's HFLM, and when it is not used."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evalharness.pair.tasks.trie import Request, cut_left, pack
from tests.conftest import tiny_tokenizer
from tests.pair.tasks.lm_sides import prepare, side

Tiny = Callable[..., Path]


def lists(document: Any) -> tuple[list[int], list[int], list[int]]:
    return document.tokens.tolist(), document.parents.tolist(), document.positions.tolist()


def sequences(groups: list[Any]) -> dict[int, tuple[list[int], list[int]]]:
    """What each request is, read back from the tries: fed tokens up to each scored place."""
    found = {}
    for group in groups:
        for document in group.documents:
            for request, nodes, targets in document.scored:
                path, node = [], int(nodes[-1])
                while node >= 0:
                    path.append(int(document.tokens[node]))
                    node = int(document.parents[node])
                found[request] = ([*group.prefix.tolist(), *path[::-1]], targets.tolist())
    return found


# -- the trie


def test_a_context_is_fed_once_and_continuations_branch_from_it() -> None:
    """By hand: shared first token once, last tokens not at all."""
    (group,) = pack([([1, 2], [5, 6, 7]), ([1, 2], [5, 8, 9]), ([1, 2], [4])], 100)
    (document,) = group.documents
    assert group.prefix.tolist() == []
    assert lists(document) == ([1, 2, 5, 6, 8], [-1, 0, 1, 2, 2], [0, 1, 2, 3, 3])
    assert [(r, n.tolist(), t.tolist()) for r, n, t in document.scored] == [
        (0, [1, 2, 3], [5, 6, 7]),
        (1, [1, 2, 4], [5, 8, 9]),
        (2, [1], [4]),
    ]
    assert document.ancestors().astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]


def test_examples_that_contexts_share_become_a_prefix() -> None:
    """Forty tokens shared by four contexts are fed once; a context of its own goes alone."""
    shared = list(range(100, 140))
    requests: list[Request] = [([*shared, 7, i], [1, 2]) for i in range(4)]
    requests.append(([9, 9, 9], [1, 2]))
    groups = {len(g.prefix): g for g in pack(requests, 1000)}
    assert sorted(groups) == [0, 41]
    assert [lists(d)[0] for d in groups[41].documents] == [[i, 1] for i in range(4)]
    assert lists(groups[41].documents[0])[2] == [41, 42]
    assert lists(groups[0].documents[0]) == ([9, 9, 9, 1], [-1, 0, 1, 2], [0, 1, 2, 3])


def test_a_stray_context_does_not_shorten_the_prefix_of_the_others() -> None:
    """Items that are examples themselves see other examples: few-shot tasks have a handful."""
    shared = list(range(100, 200))
    requests: list[Request] = [([*shared, i], [1]) for i in range(20)]
    requests.append(([*shared[:80], 7, 7], [1]))
    sizes = sorted((len(g.prefix), len(g.documents)) for g in pack(requests, 1000))
    assert sizes == [(0, 1), (100, 20)]


def test_a_short_common_beginning_is_not_worth_a_prefix() -> None:
    """Every prompt may begin with the same word."""
    (group,) = pack([([5, 5, 5, i, i], [1]) for i in range(30)], 1000)
    assert (len(group.prefix), len(group.documents)) == (0, 30)


def test_batches_are_cut_where_lengths_jump_and_are_never_too_large() -> None:
    """Padding eight short documents to a long one would cost more than another forward."""
    from evalharness.pair.tasks.trie import Group

    lengths = [400, 60, 58, 57, 55, 55, 54, 20, 20]
    documents = tuple(SimpleNamespace(tokens=range(n)) for n in lengths)
    group = Group(np.zeros(0, np.int64), documents)  # type: ignore[arg-type]

    def cut(size: int, overhead: int) -> list[list[int]]:
        return [[len(d.tokens) for d in b] for b in group.batches(size, overhead)]

    assert cut(8, 24) == [[400], [60, 58, 57, 55, 55, 54], [20, 20]]
    assert cut(4, 24) == [[400], [60, 58, 57], [55, 55, 54], [20, 20]]
    assert cut(9, 100_000) == [lengths]
    assert cut(1, 0) == [[n] for n in lengths]


@pytest.mark.parametrize("seed", range(20))
def test_every_request_can_be_read_back_from_the_tries(seed: int) -> None:
    """Random contexts with shared beginnings of random lengths, few distinct tokens."""
    random = np.random.default_rng(seed)

    def draw(low: int, high: int) -> list[int]:
        return [int(i) for i in random.integers(0, 3, random.integers(low, high))]

    stems = [draw(0, 60) for _ in range(4)]
    requests: list[Request] = [
        ([*stems[int(random.integers(4))], *draw(1, 5)], draw(1, 6)) for _ in range(60)
    ]
    found = sequences(pack(requests, 40))
    assert sorted(found) == list(range(60))
    for index, (context, continuation) in enumerate(requests):
        # lm-eval's own cut: (context + continuation)[-(max_length + 1):][:-1]
        fed = [*context, *continuation][-41:][:-1]
        assert found[index] == (fed, continuation)


def test_a_continuation_that_does_not_fit_is_refused() -> None:
    """There is no context left to predict its first token from."""
    assert cut_left([1, 2, 3], [4, 5], 3) == (2, 3)
    with pytest.raises(ValueError, match="a continuation of 4 tokens does not fit 3"):
        cut_left([1], [1, 2, 3, 4], 3)
    with pytest.raises(ValueError, match="a request must have a context and a continuation"):
        cut_left([1], [], 3)


# -- the scores


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
    from evalharness.pair.tasks.packed_lm import PrefixScorer

    runs = []
    takes = PrefixScorer.takes
    for way in (lambda *_: False, takes):
        kept: list[Any] = []
        real = module.pair_samples
        PrefixScorer.takes = way  # type: ignore[method-assign]

        def keep(task: Any, a: Any, b: Any, kept: Any = kept, real: Any = real) -> Any:
            kept.extend((a, b))
            return real(task, a, b)

        module.pair_samples = keep
        try:
            found = list(
                module.run_tasks(reference, candidate, prepare(*names, **options), batch_size=3)
            )
        finally:
            module.pair_samples, PrefixScorer.takes = real, takes  # type: ignore[method-assign]
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
        for x, y in zip(one.results, other.results, strict=True):
            assert x.reference == pytest.approx(y.reference, rel=1e-4)
            if "acc" in x.metric:
                assert x == y


@pytest.mark.parametrize("name", ["choose.yaml", "finish.yaml", "read.yaml"])
def test_scores_are_those_of_lm_eval(tiny: Tiny, name: str) -> None:
    """Multiple choice, plain and rolling log-likelihoods of both sides, float32."""
    pair = side(tiny, 0), side(tiny, 1)
    plain, packed = both_ways(*pair, name)
    assert packed[0][0].notes == ()
    assert_same(plain, packed)


def test_few_shot_scores_on_a_shared_prefix_are_those_of_lm_eval(tiny: Tiny) -> None:
    """Five examples, items that are examples themselves among them."""
    pair = side(tiny, 0, max_position_embeddings=8192), side(tiny, 1, max_position_embeddings=8192)
    plain, packed = both_ways(*pair, "mmlu_dev_cloze", num_fewshot=5, limit=20, seed=3)
    assert_same(plain, packed)


def test_prompts_that_are_too_long_are_cut_as_lm_eval_cuts_them(tiny: Tiny) -> None:
    """Each choice then keeps a context of its own length."""
    pair = side(tiny, 0, max_position_embeddings=128), side(tiny, 1, max_position_embeddings=128)
    plain, packed = both_ways(*pair, "mmlu_dev_cloze", num_fewshot=1, limit=6, seed=1)
    assert_same(plain, packed)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "phi", "gemma2"])
def test_other_architectures_are_packed_exactly(name: str) -> None:
    """Learned positions, biases, partial rotary, capped logits with a scaled embedding."""
    options = {"sliding_window": 4096} if name == "gemma2" else {}
    pair = architecture(name, 0, **options), architecture(name, 1, **options)
    plain, packed = both_ways(*pair, "choose.yaml", num_fewshot=1)
    assert packed[0][0].notes == ()
    assert_same(plain, packed)


def test_eager_attention_is_packed_exactly(tiny: Tiny) -> None:
    """It adds the mask to its scores, where sdpa takes one of booleans."""
    pair = side(tiny, 0), side(tiny, 1)
    for loaded in pair:
        loaded.model.set_attn_implementation("eager")
    plain, packed = both_ways(*pair, "choose.yaml", num_fewshot=1)
    assert packed[0][0].notes == ()
    assert_same(plain, packed)


# -- when it is not used


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bloom", "BloomForCausalLM takes positions from ALiBi, which a packed mask does not"),
        (
            "mamba",
            "MambaForCausalLM carries a state from token to token; tasks are scored request by "
            "request, and without KL",
        ),
    ],
)
def test_what_cannot_be_packed_is_scored_by_lm_eval_and_said(name: str, why: str) -> None:
    """The very scores of the other scorer, and a note that says why."""
    pair = architecture(name, 0), architecture(name, 0)
    plain, packed = both_ways(*pair, "choose.yaml", "finish.yaml")
    assert packed[0][0].notes[0].startswith(f"{name}0: {why}")
    assert packed[0][1].notes == ()  # said once
    assert_same(plain, packed, tolerance=0.0)


def test_requests_longer_than_a_sliding_window_are_not_packed() -> None:
    """A mask of ours would let them see beyond it. Shorter ones are packed."""
    pair = [architecture("mistral", s, sliding_window=60) for s in (0, 1)]
    plain, packed = both_ways(*pair, "finish.yaml", "choose.yaml")
    assert packed[0][0].notes == ()
    assert packed[0][1].notes == (
        "mistral0 and mistral1: requests of more than 60 tokens, which attention here does not "
        "reach back over, are scored request by request, and without KL",
    )
    assert_same(plain, packed)


def test_the_probe_finds_a_model_that_ignores_the_mask(tiny: Tiny) -> None:
    """An architecture nobody listed: positions and masks that are not honoured."""
    from evalharness.pair.tasks.packed_pass import PackedSide
    from evalharness.pair.tasks.packing_trial import probe

    loaded = side(tiny, 0)
    assert probe(PackedSide(loaded)) is None
    real = loaded.model.model.forward

    def careless(*args: Any, attention_mask: Any = None, **options: Any) -> Any:
        return real(*args, **options)

    loaded.model.model.forward = careless
    why = probe(PackedSide(loaded))
    assert why is not None
    assert why.startswith("LlamaForCausalLM scores a packed probe differently, by ")


def test_the_probe_tells_rounding_from_a_leak_in_16_bits(tiny: Tiny) -> None:
    """bfloat16 differs by more than float32's tolerance and is still exact up to rounding."""
    import torch

    from evalharness.pair.tasks.packed_pass import PackedSide
    from evalharness.pair.tasks.packing_trial import probe

    loaded = side(tiny, 0)
    loaded.model.to(torch.bfloat16)
    assert probe(PackedSide(loaded)) is None
    real = loaded.model.model.forward
    loaded.model.model.forward = lambda *a, attention_mask=None, **o: real(*a, **o)
    assert probe(PackedSide(loaded)) is not None


def test_a_broken_candidate_is_an_anomaly_here_too(tiny: Tiny) -> None:
    """NaN weights: the probe cannot agree, HFLM scores, the task has no score."""
    import torch

    from evalharness.pair.tasks.run import run_tasks

    reference, candidate = side(tiny, 0), side(tiny, 1)
    with torch.no_grad():
        candidate.model.lm_head.weight[7] = math.nan
    (run,) = run_tasks(reference, candidate, prepare("choose.yaml"), batch_size=2)
    assert run.anomalies[0].startswith("tiny1: NaN or infinite log-likelihood for 5 of 5 items")
    assert run.notes[0].startswith(
        "tiny1: LlamaForCausalLM gives NaN or infinite logits on a probe"
    )
    assert all(r.candidate is None and r.reference is not None for r in run.results)


# -- one pass


def test_the_pass_yields_the_divergence_at_each_scored_position(tiny: Tiny) -> None:
    """KL, half-range, arg-max, entropy, once an item and position; by float64 over plain rows."""
    import torch

    from evalharness.pair.tasks.run import run_tasks

    pair = side(tiny, 0), side(tiny, 1)
    prepared = prepare("choose.yaml", limit=4, seed=2)
    (run,) = run_tasks(*pair, prepared, batch_size=2)
    encode = pair[0].tokenizer.encode
    expected: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    seen = set()
    for instance in prepared.tasks[0].task.instances:
        context, whole = encode(instance.args[0]), encode(instance.args[0] + instance.args[1])
        with torch.no_grad():
            z, w = (s.model(torch.tensor([whole])).logits[0].double() for s in pair)
        for at in range(len(context), len(whole)):
            item = prepared.tasks[0].samples[instance.doc_id]
            if (item, tuple(whole[:at])) in seen:
                continue
            seen.add((item, tuple(whole[:at])))
            p, q = z[at - 1].log_softmax(-1), w[at - 1].log_softmax(-1)
            delta = w[at - 1] - z[at - 1]
            expected.setdefault((item, at), []).append(
                (
                    float((p.exp() * (p - q)).sum()),
                    float((q.exp() * (q - p)).sum()),
                    -float((p.exp() * p).sum()),
                    -float((q.exp() * q).sum()),
                    int(p.argmax()),
                    int(q.argmax()),
                    len(set(p.topk(5).indices.tolist()) & set(q.topk(5).indices.tolist())),
                    float(delta.abs().max()),
                    float(delta.max() - delta.min()) / 2,
                )
            )
    names = run.positions.columns[4:]
    found = {
        key: sorted(rows[names].itertuples(index=False, name=None))
        for key, rows in run.positions.groupby(["doc_id", "position"])
    }
    assert sorted(found) == sorted(expected)
    for key, rows in expected.items():
        np.testing.assert_allclose(found[key], sorted(rows), rtol=1e-4, atol=1e-5)
    assert set(run.positions["task"]) == {run.task}
    assert set(run.positions["cluster"]) == set(run.frame["cluster"])


def test_a_model_against_itself_diverges_nowhere(tiny: Tiny) -> None:
    """Exactly."""
    from evalharness.pair.tasks.run import run_tasks

    loaded = side(tiny, 0)
    (run,) = run_tasks(loaded, loaded, prepare("choose.yaml"), batch_size=2)
    rows = run.positions
    assert len(rows) > 0
    assert (rows[["kl", "kl_reverse", "max_abs", "half_range"]] == 0).all(axis=None)
    assert (rows["top5_overlap"] == 5).all()


def test_swapping_the_sides_swaps_the_divergence(tiny: Tiny) -> None:
    """Forward and reverse KL change places; the half-range stays."""
    from evalharness.pair.tasks.run import run_tasks

    a, b = side(tiny, 0), side(tiny, 1)
    (one,) = run_tasks(a, b, prepare("choose.yaml"), batch_size=2)
    (two,) = run_tasks(b, a, prepare("choose.yaml"), batch_size=2)
    np.testing.assert_allclose(one.positions["kl"], two.positions["kl_reverse"], rtol=1e-5)
    np.testing.assert_array_equal(one.positions["half_range"], two.positions["half_range"])


def test_a_masked_logit_is_scored_as_torch_does_and_its_divergence_is_unknown(tiny: Tiny) -> None:
    """−inf at a token that no continuation holds: finite scores, NaN statistics."""
    import torch

    from evalharness.pair.tasks.packed_pass import PackedSide, PairedPass

    pair = side(tiny, 0), side(tiny, 1)
    requests = [((5, 6, 7), (8, 9)), ((5, 6, 7), (8, 10, 11))]
    passes = PairedPass([PackedSide(s) for s in pair], batch_size=2, max_length=64)
    before = passes.answers(0, requests)
    passes.forget()
    handle = passes.sides[0].side.head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor([99]), -math.inf)
    )
    after = passes.answers(0, requests)
    handle.remove()
    for (context, continuation), (log_p, _), (old, _) in zip(requests, after, before, strict=True):
        z = pair[0].model(torch.tensor([[*context, *continuation]])).logits[0].detach().clone()
        z[:, 99] = -math.inf
        z = z[len(context) - 1 : -1].log_softmax(-1)
        assert log_p == pytest.approx(float(z.gather(1, torch.tensor(continuation)[:, None]).sum()))
        assert log_p > old
    found = passes.positions([(0, r) for r in requests])
    assert found["position"].tolist() == [3, 4, 5]
    assert np.isnan(found["kl"]).all()
    assert np.isnan(found["half_range"]).all()


def test_sides_with_different_vocabularies_are_scored_apart(tiny: Tiny) -> None:
    """The reference never sees the candidate's ids; scores are still lm-eval's."""
    reference, candidate = side(tiny, 0), architecture("qwen2", 1, vocab_size=400)
    candidate.tokenizer.add_tokens(["fox", "river"])
    plain, packed = both_ways(reference, candidate, "choose.yaml")
    assert_same(plain, packed)
    assert packed[0][0].positions.empty


def test_out_of_memory_is_no_reason_not_to_pack(tiny: Tiny) -> None:
    """It goes on to whoever halves the batch."""
    from evalharness.pair.tasks.packed_pass import PackedSide
    from evalharness.pair.tasks.packing_trial import probe

    loaded = side(tiny, 0)
    packed = PackedSide(loaded)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    loaded.model.model.forward = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        probe(packed)


def test_progress_ends_at_the_total(tiny: Tiny) -> None:
    """A pass over both sides may run ahead of the first, never beyond the end."""
    from evalharness.pair.tasks.run import run_tasks

    pair = side(tiny, 0), side(tiny, 1)
    prepared = prepare("choose.yaml", "read.yaml", "finish.yaml")
    counts: list[int] = []
    list(
        run_tasks(
            *pair,
            prepared,
            batch_size=2,
            progress=lambda done, total, label: counts.append(done),
        )
    )
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2 * prepared.requests)
