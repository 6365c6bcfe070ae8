"""The four errors of a block against whole-model hooks and a brute-force second call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evalharness.errors import RunError
from evalharness.pair.side import Side
from evalharness.probes.layer_watcher import LayerWatcher

ALL = ("total", "own", "inherited", "own_on_clean")


def batch(side: Any, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, windows with some padding, positions."""
    torch.manual_seed(seed)
    ids = torch.randint(1, side.vocab_size, (3, 12))
    windows = torch.tensor([[0] * 12, [1] * 12, [1] * 9 + [-1] * 3])
    return ids, windows, torch.arange(12).expand(3, 12)


def probe_once(reference: Any, candidate: Any, errors: tuple[str, ...] = ALL) -> list[Any]:
    probe = LayerWatcher(reference, candidate, True, errors)
    ids, windows, at = batch(reference)
    with torch.inference_mode():
        for _ in range(2):  # the first batch is the one that looks for writes in place
            probe.begin([0, 1])
            h_ref, h_cand = probe.run(ids, ids, windows, at)
            flat = (windows.flatten(), at.flatten())
            keep = flat[0] >= 0
            rows = [h.flatten(0, 1)[keep] for h in (h_ref, h_cand)]
            z_ref, z_cand = reference.logits(rows[0]), candidate.logits(rows[1])
            probe.add_head(z_ref, z_cand, flat[0][keep], flat[1][keep], rows[1])
            table = probe.table()
    probe_once.last = probe  # type: ignore[attr-defined]
    return list(table.to_pylist())


def whole(side: Any, ids: torch.Tensor) -> dict[str, tuple[Any, Any, Any]]:
    """Every module's arguments and output from an ordinary pass."""
    found: dict[str, tuple[Any, Any, Any]] = {}
    handles = []
    for name, module in side.model.named_modules():

        def hook(m: Any, args: Any, kwargs: Any, out: Any, name: str = name) -> None:
            x = args[0] if args else kwargs.get("hidden_states")
            found[name] = ((x, args[1:], kwargs), out[0] if isinstance(out, tuple) else out, m)

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    with torch.inference_mode():
        side.hidden(ids)
    for handle in handles:
        handle.remove()
    return found


def test_streaming_equals_whole_model_hooks_and_a_second_call_by_hand(side: Callable) -> None:
    """Sums of all four errors of every block and of total and own of every linear."""
    reference, candidate = side(), side(bits=3)
    rows = {(r["error"], r["layer"], r["doc"]): r for r in probe_once(reference, candidate)}
    ids, windows, at = batch(reference)
    ref, cand = whole(reference, ids), whole(candidate, ids)
    checked = 0
    for (error, layer, doc), row in rows.items():
        if layer == "lm_head":
            continue
        (x, args, kwargs), y, f = ref[layer]
        (x_tilde, args_c, kwargs_c), y_tilde, g = cand[layer]
        with torch.inference_mode():
            again, alone = f(x_tilde, *args, **kwargs), g(x, *args_c, **kwargs_c)
        again, alone = (o[0] if isinstance(o, tuple) else o for o in (again, alone))
        a, b = {
            "total": (y, y_tilde),
            "own": (again, y_tilde),
            "inherited": (y, again),
            "own_on_clean": (y, alone),
        }[error]
        keep = (windows == doc) & (at > 0)
        delta = (b - a)[keep].double()
        assert row["tokens"] == int(keep.sum())
        assert row["err_sq"] == pytest.approx(float(delta.square().sum()), rel=1e-5, abs=1e-12)
        assert row["ref_sq"] == pytest.approx(float(a[keep].double().square().sum()), rel=1e-5)
        if row["kind"] == "block":
            base = x_tilde if error == "own" else x
            update = (a - base)[keep].double().square().sum()
            assert row["update_sq"] == pytest.approx(float(update), rel=1e-5)
        checked += 1
    assert checked == 2 * (2 * 4 + 14 * 2)
    heads = {r["error"] for k, r in rows.items() if k[1] == "lm_head"}
    assert heads == {"total", "own"}


def test_total_is_own_plus_inherited_to_float32_rounding(side: Callable) -> None:
    """Vector by vector: the very tensors that the sums are given."""
    reference, candidate = side(), side(bits=2)
    probe = LayerWatcher(reference, candidate, False, ("total", "own", "inherited"))
    seen: dict[tuple[str, str], torch.Tensor] = {}
    add = probe.add

    def watched(error: str, name: str, ref: Any, cand: Any, *rest: Any) -> None:
        seen[error, name] = cand.double() - ref.double()
        add(error, name, ref, cand, *rest)

    probe.add = watched  # type: ignore[method-assign]
    probe.begin([0, 1])
    with torch.inference_mode():
        probe.run(*(batch(reference)[i] for i in (0, 0, 1, 2)))
    for pair in probe.blocks:
        total = seen["total", pair.name]
        both = seen["own", pair.name] + seen["inherited", pair.name]
        assert float(total.abs().max()) > 0
        assert float((total - both).abs().max()) <= 1e-6 * float(total.abs().max())
    assert float(seen["inherited", probe.blocks[0].name].abs().max()) == 0


def test_a_model_against_itself_is_exactly_zero_everywhere(side: Callable) -> None:
    for row in probe_once(side(), side()):
        assert row["err_sq"] == row["pos0_err_sq"] == row["max_abs"] == 0


def median_of(rows: list[Any], error: str, kind: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for r in rows:
        if r["error"] == error and r["kind"] == kind:
            found.setdefault(r["layer"], [0.0, 0.0])
            found[r["layer"]][0] += r["err_sq"]
            found[r["layer"]][1] += r["ref_sq"]
    return {k: math.sqrt(e / max(r, 1e-30)) for k, (e, r) in found.items()}


def test_own_error_names_the_damaged_module_where_total_blames_those_behind(side: Callable) -> None:
    reference, candidate = side(num_hidden_layers=4), side(num_hidden_layers=4)
    bad = "model.layers.1.mlp.up_proj"
    with torch.no_grad():
        candidate.model.get_submodule(bad).weight.mul_(1.5)
    rows = probe_once(reference, candidate)
    own, total = median_of(rows, "own", "linear"), median_of(rows, "total", "linear")
    assert {k for k, v in own.items() if v > 0} == {bad}
    assert sum(v > 0 for v in total.values()) > 10
    own_blocks = median_of(rows, "own", "block")
    assert {k for k, v in own_blocks.items() if v > 0} == {"model.layers.1"}
    inherited = median_of(rows, "inherited", "block")
    assert {k for k, v in inherited.items() if v > 0} == {"model.layers.2", "model.layers.3"}


class _Twice(nn.Module):
    """An MLP that calls the one inside two times."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = inner.gate_proj, inner.up_proj
        self.down_proj, self.act_fn = inner.down_proj, inner.act_fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return x


def test_a_module_that_is_called_twice_is_compared_call_by_call(side: Callable) -> None:
    """Its tokens count twice; against itself the error stays exactly 0."""
    pair = side(), side()
    for one in pair:
        for layer in one.model.model.layers:
            layer.mlp = _Twice(layer.mlp)
    rows = probe_once(*pair)
    assert all(r["err_sq"] == 0 for r in rows)
    tokens = {r["layer"]: r["tokens"] for r in rows if r["doc"] == 0 and r["error"] == "own"}
    assert tokens["model.layers.0.mlp.up_proj"] == 2 * tokens["model.layers.0.self_attn.q_proj"]


class _InPlace(nn.Module):
    """A block that adds its update to the tensor it was given; returns a tuple."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        out = self.inner(hidden_states.clone(), **kwargs)
        return hidden_states.copy_(out[0] if isinstance(out, tuple) else out)


def test_a_block_that_writes_into_its_input_is_measured_as_one_that_does_not(
    side: Callable,
) -> None:
    plain = probe_once(side(), side(bits=3))
    pair = side(), side(bits=3)
    for one in pair:
        for i, layer in enumerate(one.model.model.layers):
            one.model.model.layers[i] = _InPlace(layer)
    found = probe_once(*pair)
    assert probe_once.last.in_place == {"model.layers.0", "model.layers.1"}  # type: ignore[attr-defined]
    keys = ("doc", "tokens", "err_sq", "ref_sq", "update_sq")
    blocks = [
        [{k: r[k] for k in keys} for r in rows if r["kind"] == "block"] for rows in (plain, found)
    ]
    for one, other in zip(*blocks, strict=True):
        assert other == pytest.approx(one, rel=1e-6)


class _Added(nn.Module):
    """A linear whose output the caller then writes into."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = inner.gate_proj, inner.up_proj
        self.down_proj, self.act_fn = inner.down_proj, inner.act_fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate_proj(x)
        return self.down_proj(self.act_fn(gate).mul_(self.up_proj(x).mul_(2)))


def test_an_output_that_is_written_into_later_is_compared_as_it_was(side: Callable) -> None:
    reference, candidate = side(), side(bits=3)
    for one in (reference, candidate):
        for layer in one.model.model.layers:
            layer.mlp = _Added(layer.mlp)
    rows = probe_once(reference, candidate)
    name = "model.layers.0.mlp.up_proj"
    assert name in probe_once.last.in_place  # type: ignore[attr-defined]
    ids, windows, at = batch(reference)
    outs = []
    for one in (reference, candidate):
        got: list[torch.Tensor] = []
        handle = one.model.get_submodule(name).register_forward_hook(
            lambda m, a, o, got=got: got.append(o.clone())
        )
        with torch.inference_mode():
            one.hidden(ids)
        handle.remove()
        outs.append(got[0])
    keep = (windows == 0) & (at > 0)
    expected = float((outs[1] - outs[0])[keep].double().square().sum())
    row = next(r for r in rows if (r["layer"], r["error"], r["doc"]) == (name, "total", 0))
    assert row["err_sq"] == pytest.approx(expected, rel=1e-5)


def test_blocks_in_another_order_are_an_error_and_not_a_wrong_comparison(side: Callable) -> None:
    reference, candidate = side(), side()
    layers = candidate.model.model.layers
    forward = type(candidate.model.model).forward

    def reversed_order(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.layers = nn.ModuleList(list(layers)[::-1])
        return forward(self, *args, **kwargs)

    candidate.backbone.forward = reversed_order.__get__(candidate.backbone)
    with pytest.raises(RunError, match="do not run the same sequence of blocks"):
        probe_once(reference, candidate)


def test_a_linear_that_no_token_reaches_has_no_row(side: Callable) -> None:
    """As an expert that was never routed to: not measured, rather than 0."""
    reference, candidate = side(), side(bits=3)
    for one in (reference, candidate):
        one.model.model.layers[0].mlp.spare = nn.Linear(4, 4)
    rows = probe_once(reference, candidate)
    assert not any("spare" in r["layer"] for r in rows)
    assert any("spare" in p.name for p in probe_once.last.pairs)  # type: ignore[attr-defined]


def test_histograms_hold_every_token(side: Callable) -> None:
    for row in probe_once(side(), side(bits=3)):
        assert np.sum(row["rel_counts"]) == row["tokens"]


def test_a_block_that_returns_a_tuple_is_compared_by_its_hidden_states(side: Callable) -> None:
    """BLOOM's blocks return (hidden states, attention): its own sums, and 0 against itself."""
    from transformers import BloomConfig, BloomForCausalLM

    made = []
    for damage in (0.0, 0.05, 0.0):
        torch.manual_seed(0)
        model = BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4))
        with torch.no_grad():
            model.transformer.h[1].mlp.dense_h_to_4h.weight.mul_(1 + damage)
        one = side()
        made.append(Side(replace(one.loaded, model=model.eval().requires_grad_(False))))
    returned: list[Any] = []
    first = made[0].model.transformer.h[0]
    handle = first.register_forward_hook(lambda m, x, y: returned.append(y))
    rows = probe_once(made[0], made[1])
    handle.remove()
    assert all(isinstance(y, tuple) for y in returned)
    own = {r["layer"]: r["err_sq"] for r in rows if r["error"] == "own" and r["kind"] == "block"}
    assert own["transformer.h.0"] == 0
    assert own["transformer.h.1"] > 0
    assert all(r["err_sq"] == 0 for r in probe_once(made[0], made[2]))
