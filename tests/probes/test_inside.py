"""Weights, activations, routing and CKA against brute force, end to end through `compare`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from evalharness.data.windows import Window
from evalharness.engines.dequantize import dense_weight
from evalharness.pair.matching import match
from evalharness.probes.activation_sums import activations
from evalharness.probes.cka import hsic
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.probes.routing import RoutingSums
from evalharness.probes.weights import weight_errors
from evalharness.results.activations import kurtosis as from_sums
from tests.workflow.jobs import compared

UP = "model.layers.0.mlp.up_proj"


def windows(count: int = 3, length: int = 20, seed: int = 0) -> list[Window]:
    random = np.random.default_rng(seed)
    return [Window(i, i, 0, random.integers(1, 300, length), 0, length - 1) for i in range(count)]


def test_weight_errors_are_those_of_float64_numpy(side: Callable) -> None:
    reference, candidate = side(), side(bits=3)
    pairs, _ = match(reference.model, candidate.model)
    table, columns = weight_errors(reference, candidate, pairs)
    rows = {r["layer"]: r for r in table.to_pylist()}
    assert set(rows) == {"model.embed_tokens", "lm_head"} | {
        p.name for p in pairs if p.kind == "linear"
    }
    a, b = (s.model.get_submodule(UP).weight.double().numpy() for s in (reference, candidate))
    delta = b - a
    assert rows[UP]["err_sq"] == pytest.approx((delta**2).sum(), rel=1e-6)
    assert rows[UP]["ref_sq"] == pytest.approx((a**2).sum(), rel=1e-6)
    place = rows[UP]["max_abs_row"], rows[UP]["max_abs_column"]
    assert abs(delta[place]) == np.abs(delta).max() == pytest.approx(rows[UP]["max_abs"])
    assert rows[UP]["bits_cand"] == pytest.approx(3 + 16 / a.shape[1])
    assert rows["model.embed_tokens"]["err_sq"] == 0
    assert columns[UP].error.numpy() == pytest.approx((delta**2).sum(0), rel=1e-5)


def test_activations_are_those_of_whole_inputs(side: Callable) -> None:
    """Largest |x|, moments against scipy, energy, and the error weighted token by token."""
    reference, candidate = side(), side(bits=3)
    pairs, _ = match(reference.model, candidate.model)
    _, columns = weight_errors(reference, candidate, pairs)
    sampled, text = windows(), windows(seed=1)
    found = activations(reference, candidate, pairs, sampled, columns, text)
    given: dict[str, list[Any]] = {"windows": [], "text": []}
    for key, chosen in (("windows", sampled), ("text", text)):
        handle = reference.model.get_submodule(UP).register_forward_pre_hook(
            lambda m, args, key=key: given[key].append(args[0][0].double().numpy())
        )
        with torch.inference_mode():
            for window in chosen:
                reference.hidden(torch.from_numpy(window.ids)[None])
        handle.remove()
    x, seen = (np.concatenate([g[1:] for g in given[k]]) for k in ("windows", "text"))
    rows = [
        r for r in found["activations"].to_pylist() if (r["layer"], r["side"]) == (UP, "reference")
    ]
    assert sum(r["values"] for r in rows) == x.size
    assert max(r["max_abs"] for r in rows) == pytest.approx(np.abs(x).max())
    assert max(r["pos0_max_abs"] for r in rows) == pytest.approx(
        max(np.abs(g[0]).max() for g in given["windows"])
    )
    sums = [sum(r[c] for r in rows) for c in ("values", "sum", "sum_sq", "sum_cube", "sum_quad")]
    assert from_sums(*sums) == pytest.approx(kurtosis(x.ravel(), fisher=False), rel=1e-4)
    w, w_tilde = (s.model.get_submodule(UP).weight.double().numpy() for s in (reference, candidate))
    brute = sum((((w_tilde - w) * row) ** 2).sum() for row in x)
    assert sum(r["weighted_err_sq"] for r in rows) == pytest.approx(brute, rel=1e-5)
    assert sum(r["beyond_range"] for r in rows) == (np.abs(x) > np.abs(seen).max()).sum()
    assert sum(r["beyond_channel"] for r in rows) == (np.abs(x) > np.abs(seen).max(0)).sum()
    out = [
        r
        for r in found["outliers"].to_pylist()
        if (r["layer"], r["side"], r["by"]) == (UP, "reference", "max")
    ]
    order = np.argsort(-np.abs(x).max(0), kind="stable")
    assert [r["channel"] for r in out] == order[:8].tolist()
    energy = (x**2).sum(0) / (x**2).sum()
    assert out[0]["top_energy"] == pytest.approx(energy.max(), rel=1e-5)


@pytest.mark.parametrize("kind", ["bitsandbytes 4", "bitsandbytes 8", "torchao", "unknown"])
def test_a_dense_weight_is_what_the_module_multiplies_by(kind: str) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32, bias=True)
    expected = linear.weight.detach().clone()
    if kind == "torchao":
        torchao = pytest.importorskip("torchao.quantization")
        torchao.quantize_(linear, torchao.Int8WeightOnlyConfig())
    elif kind.startswith("bitsandbytes"):
        bnb = pytest.importorskip("bitsandbytes")
        if kind.endswith("4"):
            made = bnb.nn.Linear4bit(64, 32, quant_type="nf4", compute_dtype=torch.float32)
        else:
            made = bnb.nn.Linear8bitLt(64, 32, has_fp16_weights=False)
        made.load_state_dict(linear.state_dict())
        linear = made.to("cpu")
        linear(torch.zeros(1, 64))
    else:

        class Packed(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.in_features, self.out_features = [linear], 64, 32

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.inner[0](x)

        linear = Packed()  # type: ignore[assignment]
    with torch.no_grad():
        dense = dense_weight(linear).float()
    error = float((dense - expected).norm() / expected.norm())
    assert dense.shape == (32, 64)
    assert error < {"bitsandbytes 4": 0.15, "bitsandbytes 8": 0.02, "torchao": 0.02}.get(kind, 1e-5)
    assert (error > 1e-4) == (kind != "unknown")


def test_hsic_is_the_average_over_all_quadruples() -> None:
    """The U-statistic of order four that it estimates, by brute force (Song et al. 2012)."""
    from itertools import permutations

    torch.manual_seed(0)
    x, y = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    k, m = x @ x.T, y @ y.T
    total, count = 0.0, 0
    for i, j, q, r in permutations(range(6), 4):
        total += float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
        count += 1
    for gram in (k, m):
        gram.fill_diagonal_(0)
    assert float(hsic(k[None], m[None])) == pytest.approx(total / count)


def test_routing_counts_are_those_of_a_loop() -> None:
    docs_BT, at = torch.tensor([[0, 0, 0, -1], [1, 1, 1, 1]]), torch.arange(4).expand(2, 4)
    random = np.random.default_rng(0)
    a, b = (torch.tensor(np.array([random.permutation(5)[:2] for _ in range(8)])) for _ in "ab")
    sums = RoutingSums(2, torch.device("cpu"))
    sums.add("r", 5, a, b, docs_BT, at)
    for row in sums.table([7, 9]).to_pylist():
        kept = [
            n for n in range(8) if docs_BT.flatten()[n] == (row["doc"] == 9) and at.flatten()[n] > 0
        ]
        sent = [[row["expert"] in t[n].tolist() for n in kept] for t in (a, b)]
        assert row["tokens"] == len(kept)
        assert [row["tokens_ref"], row["tokens_cand"]] == [sum(s) for s in sent]
        assert row["tokens_both"] == sum(p and q for p, q in zip(*sent, strict=True))


@pytest.mark.parametrize("family", ["Mixtral", "Qwen2Moe"])
def test_a_mixture_of_experts_has_its_routers_and_experts_measured(
    side: Callable, family: str
) -> None:
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts_per_tok": 2,
    }
    if family == "Mixtral":
        config: Any = transformers.MixtralConfig(**sizes, num_local_experts=4)
    else:
        config = transformers.Qwen2MoeConfig(
            **sizes, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16
        )
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(transformers.AutoModelForCausalLM.from_config(config).eval())
    with torch.no_grad():
        models[1].model.layers[0].mlp.experts.gate_up_proj[2].mul_(3)
    pair = side(), side()
    for one, model in zip(pair, models, strict=True):
        one.model, one.backbone, one.head = model, model.model, model.lm_head
    probe = LayerWatcher(*pair, True, ("total", "own", "inherited"))
    assert probe.matching.unmatched_reference == probe.matching.unmatched_candidate == []
    probe.begin([0])
    ids = torch.arange(1, 41).reshape(2, 20)
    with torch.inference_mode():
        probe.run(ids, ids, torch.zeros(2, 20).long(), torch.arange(20).expand(2, 20))
    tables = probe.tables()
    own = {
        r["layer"]: r["err_sq"]
        for r in tables["layers"].to_pylist()
        if r["error"] == "own" and r["kind"] != "block"
    }
    bad = "model.layers.0.mlp.experts"
    assert {k for k, v in own.items() if v > 0} == {bad}
    assert "model.layers.1.mlp.gate" in own
    rows = tables["routing"].to_pylist()
    assert {r["layer"] for r in rows} == {f"model.layers.{i}.mlp.gate" for i in range(2)}
    for layer in (0, 1):
        sent = [r for r in rows if r["layer"] == f"model.layers.{layer}.mlp.gate"]
        assert sum(r["tokens_ref"] for r in sent) == 2 * 38
        if layer == 0:
            assert all(r["tokens_ref"] == r["tokens_cand"] == r["tokens_both"] for r in sent)
    errors, _ = weight_errors(*pair, probe.pairs)
    wrong = {(r["layer"], r["tensor"]) for r in errors.to_pylist() if r["err_sq"]}
    assert wrong == {(bad, "gate_up_proj[2]")}


def test_a_run_with_everything_says_it_in_its_result(project: Path) -> None:
    """Weights, both sides' activations and the calibration text, from YAML to result.json."""
    suite = (project / "suite.yaml").read_text()
    (project / "suite.yaml").write_text(
        suite.replace("probes: [layers]", "probes: [layers, activations]")
    )
    text = (project / "candidate.yaml").read_text()
    (project / "calib.txt").write_text("Sphinx of black quartz, judge my vow. " * 40)
    (project / "candidate.yaml").write_text(text + "manifest: {calibration_data: calib.txt}\n")
    result = compared(project).result
    up = next(w for w in result.weights if w.layer == UP)
    assert up.error
    assert up.weighted_low <= up.weighted <= up.weighted_high
    assert up.bits_candidate == pytest.approx(4.5)
    assert {a.side for a in result.activations} == {"reference", "candidate", "calibration"}
    assert all(c.beyond_channel is not None for c in result.calibration)
    worst = max((r for r in result.layers if r.error == "own"), key=lambda r: r.median or 0)
    assert worst.worst_channel is not None


def test_a_calibration_file_that_is_not_there_is_named(project: Path) -> None:
    from evalharness.errors import InputError
    from evalharness.spec.model import load_model_spec

    text = (project / "candidate.yaml").read_text()
    (project / "candidate.yaml").write_text(text + "manifest: {calibration_data: gone.jsonl}\n")
    with pytest.raises(InputError, match=r"calibration_data.*gone\.jsonl"):
        load_model_spec(project / "candidate.yaml")


def test_a_student_of_another_depth_and_width_gets_cka(project: Path, tiny: Callable) -> None:
    (project / "candidate.yaml").write_text(
        f"version: 1\nname: student\nmodel: {{path: {tiny(hidden_size=16, num_hidden_layers=1)}, "
        "dtype: float32, device: cpu}\n"
    )
    found = compared(project).result.similarity
    assert found is not None
    assert (len(found.reference), len(found.candidate)) == (2, 1)
    assert all(v is None or v <= 1.5 for row in found.cka for v in row)
