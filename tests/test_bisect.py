"""The search, the repair it writes, and what it says when there is none."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalharness.api import compare
from evalharness.bisect import bisect
from evalharness.errors import InputError, Interrupted
from evalharness.keep_lists import keep_lists, repair_spec
from evalharness.run import Run
from evalharness.search import BudgetSpent, smallest_set
from evalharness.spec.model import ModelSpec, load_model_spec

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models

NAMES = [f"m{i}" for i in range(20)]


@pytest.mark.parametrize("needed", [(), ("m0",), ("m19",), ("m3", "m11"), tuple(NAMES)])
def test_exactly_the_modules_that_are_needed_are_found(needed: tuple[str, ...]) -> None:
    """Wherever they stand in the order, when restoring more never hurts."""
    found = smallest_set(NAMES, lambda s: s >= set(needed))
    assert found.restored is not None
    assert set(found.restored) == set(needed)
    assert found.minimal


def test_a_set_that_more_modules_would_spoil_is_still_one_that_passes() -> None:
    """Random functions that are not monotone: whatever is returned passes, and is 1-minimal."""
    for seed in range(30):
        rng = random.Random(seed)
        passing = {frozenset(NAMES)} | {
            frozenset(rng.sample(NAMES, rng.randint(3, 15))) for _ in range(200)
        }

        def passes(s: frozenset[str], passing: Any = passing) -> bool:
            return any(p <= s for p in passing) and len(s) % 7 != 5

        found = smallest_set(NAMES, passes)
        assert found.restored is None or passes(frozenset(found.restored))
        if found.minimal and found.restored:
            for name in found.restored:
                rest = frozenset(found.restored) - {name}
                assert not rest or not passes(rest)


def test_nothing_passes_and_nothing_is_found() -> None:
    assert smallest_set(NAMES, lambda s: False).restored is None


def test_a_spent_budget_gives_the_best_set_so_far_and_says_so() -> None:
    count = itertools.count()

    def passes(s: frozenset[str]) -> bool:
        if next(count) == 8:
            raise BudgetSpent
        return s >= {"m9"}

    found = smallest_set(NAMES, passes)
    assert found.restored is not None
    assert "m9" in found.restored
    assert not found.minimal


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
    for method, key in (
        ("bitsandbytes", "llm_int8_skip_modules"), ("torchao", "modules_to_not_convert"),
    ):  # fmt: skip
        made, _ = repair_spec(spec(quantization={"method": method}), ["b"], "lm_head")
        assert made is not None
        assert made.quantization is not None
        assert made.quantization[key] == ["lm_head", "b"]
    made, why = repair_spec(spec(), ["b"], "lm_head")
    assert made is None
    assert "compress it again with one of the keep-lists" in why


def test_a_bitsandbytes_candidate_is_repaired_through_its_skip_list(
    project: Path, tiny: Callable[..., Path]
) -> None:
    pytest.importorskip("bitsandbytes")
    wide = tiny(hidden_size=64, intermediate_size=128)  # its blocks are of 64 columns
    (project / "base.yaml").write_text(
        f"version: 1\nname: base\nmodel: {{path: {wide}, dtype: float32, device: cpu}}\n"
    )
    (project / "candidate.yaml").write_text(
        "from: base.yaml\nname: nf4\nquantization: {method: bitsandbytes, load_in_4bit: true}\n"
    )
    (project / "gates.yaml").write_text(
        "version: 1\nname: tiny\ngates:\n  - {metric: kl.mean, max: 0.02}\n"
    )
    compare(
        project / "base.yaml", project / "candidate.yaml", suite=project / "suite.yaml",
        gates=project / "gates.yaml", out=project / "run",
    )  # fmt: skip
    repair = bisect(project / "run")
    assert repair.restored
    assert repair.bits_after is not None
    assert repair.bits_before is not None
    assert repair.bits_after > repair.bits_before
    made = load_model_spec(project / "run" / "repair.yaml")
    assert made.quantization is not None
    assert made.quantization["llm_int8_skip_modules"] == ["lm_head", *repair.restored]


@pytest.fixture
def run(project: Path) -> Callable[..., Path]:
    """A finished run of the tiny pair at some bits under a limit on KL."""

    def make(bits: int = 2, limit: float = 1.0, extra: str = "") -> Path:
        (project / "candidate.yaml").write_text(
            f"from: base.yaml\nname: int{bits}\n"
            f"simulate: {{weights: {{bits: {bits}, granularity: channel, symmetric: true}}}}\n"
        )
        (project / "gates.yaml").write_text(
            f"version: 1\nname: tiny\ngates:\n  - {{metric: kl.mean, max: {limit}}}\n{extra}"
        )
        compare(
            project / "base.yaml", project / "candidate.yaml", suite=project / "suite.yaml",
            gates=project / "gates.yaml", out=project / "run",
        )  # fmt: skip
        return project / "run"

    return make


def test_a_failing_run_gets_a_repair_that_passes_on_held_out_documents(
    run: Callable[..., Path],
) -> None:
    path = run(
        limit=0.3,
        extra="  - {metric: weights.bits_per_weight, max: 40}\n"
        '  - {metric: layer.error.own, scope: {layer: "model.layers.*"}, max: 5}\n',
    )
    repair = bisect(path)
    assert repair.verdict_before == "FAIL"
    assert repair.restored
    assert len(repair.restored) < repair.considered == 15
    assert repair.left_out == ["weights.bits_per_weight (cost is counted at the end)"]
    assert {g.id for g in repair.after} == {g.id for g in repair.before}
    assert repair.bits_after is not None
    assert repair.bits_before is not None
    assert repair.bits_after > repair.bits_before
    # Its file loads, and is the candidate with just these modules left alone.
    made = load_model_spec(path / "repair.yaml")
    assert made.simulate is not None
    assert set(made.simulate.weights.exclude) == set(repair.restored)
    assert yaml.safe_load((path / "keep_lists.yaml").read_text())["llm-compressor"]["ignore"]
    # Each evaluation is a line, and the last set was seen to pass.
    rows = [json.loads(line) for line in (path / "bisect.jsonl").read_text().splitlines()]
    assert len(rows) == repair.evaluations
    assert next(r for r in rows if r["restored"] == sorted(repair.restored))["passed"]
    # The run is whole again, and its report shows both.
    Run.open(path).verify(("",))
    page = (path / "report.html").read_text()
    assert "Sensitivity and repair" in page
    assert repair.restored[0] in page
    result = json.loads((path / "result.json").read_text())
    assert repair.reason == ""
    assert result["sensitivity"]["zero_swap"] == 0
    assert result["repair"]["verdict_after"] == repair.verdict_after


def test_a_second_bisect_replays_the_log_and_measures_nothing(run: Callable[..., Path]) -> None:
    path = run()
    first = bisect(path)
    log = (path / "bisect.jsonl").read_text()
    again = bisect(path)
    assert again.restored == first.restored
    assert (path / "bisect.jsonl").read_text() == log


def test_an_interrupted_bisect_goes_on_where_it_was(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalharness.pair.trial import Trials

    path = run(limit=0.1)
    decide, calls = Trials.decide, itertools.count()

    def broken(self: Any, names: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return decide(self, names)

    monkeypatch.setattr(Trials, "decide", broken)
    with pytest.raises(Interrupted, match="To go on: evalharness bisect"):
        bisect(path)
    kept = (path / "bisect.jsonl").read_text().splitlines()
    assert len(kept) == 2
    monkeypatch.setattr(Trials, "decide", decide)
    repair = bisect(path)
    rows = (path / "bisect.jsonl").read_text().splitlines()
    assert rows[:2] == kept
    assert len({tuple(json.loads(r)["restored"]) for r in rows}) == len(rows) == repair.evaluations


def test_a_run_that_passes_needs_no_repair(run: Callable[..., Path]) -> None:
    repair = bisect(run(bits=8, limit=100))
    assert repair.restored == []
    assert repair.evaluations == 1


def test_limits_that_no_set_meets_are_said(run: Callable[..., Path]) -> None:
    """The reference itself does not reach the limit."""
    path = run(limit=1.0, extra="  - {metric: perplexity.reference, max: 1.0001}\n")
    repair = bisect(path)
    assert repair.restored is None
    assert "not even the reference's own modules" in repair.reason


def test_a_policy_without_text_gates_is_refused(run: Callable[..., Path], project: Path) -> None:
    path = run()
    (project / "cost.yaml").write_text(
        "version: 1\nname: cost\ngates:\n  - {metric: weights.bits_per_weight, max: 4}\n"
    )
    from evalharness.gates import load_policy

    with pytest.raises(InputError, match="no blocking gate on text or layers"):
        bisect(path, policy=load_policy(project / "cost.yaml"))


def test_another_model_under_the_same_name_is_refused(
    run: Callable[..., Path], project: Path, tiny: Callable[..., Path]
) -> None:
    path = run()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["reference"]["model"]["path"] = str(tiny(5))
    del manifest["sha256"]  # or the edit itself would be what is refused
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="are not those of the run"):
        bisect(path)
