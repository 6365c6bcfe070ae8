"""Gates relative to a stored run that keeps what its means are made of."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.errors import InputError
from evalharness.gates import Decision, collect, decide, load_baseline, save_baseline
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.metrics.paired import outcomes
from evalharness.run.directory import InMemory
from evalharness.spec.result import GateResult
from evalharness.stats import mean_of_parts, tango
from evalharness.testing import Tables, synthetic
from evalharness.testing.records import MANIFEST, Arrow
from tests.gates.fakes import gate
from tests.metrics.test_task_groups import suite_of

IDENTITY = {"data": "d1", "tokenizer": "t1", "metrics": "m1"}
OTHER_DATA = IDENTITY | {"data": "d2"}
Change = Callable[[dict[str, Any]], None]


def run_of(tables: Tables, **manifest: Any) -> Estimates:
    return Estimates(Evidence(InMemory({**MANIFEST, **manifest}, Arrow(tables))))  # type: ignore[arg-type]


def save(path: Path, stored: Estimates) -> Path:
    save_baseline(path, "runs/main", IDENTITY, stored.all(0.95), collect(stored))
    return path


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of thirty documents and sixty items."""
    return save(tmp_path_factory.mktemp("stored") / "main.json", run_of(synthetic(30)))


def decided(stored: Path, rule: str, run: Estimates, identity: Any = IDENTITY) -> Decision:
    return decide(
        gate(f"{rule}, relative_to: baseline"),
        run,
        baseline=load_baseline(stored),
        identity=identity,
    )


def judged(stored: Path, rule: str, run: Estimates, identity: Any = IDENTITY) -> GateResult:
    (result,) = decided(stored, rule, run, identity).gates
    return result


def without(tables: Tables, document: str) -> Tables:
    """The same run without one of its documents."""
    texts = tables["documents"]
    lost = int(texts.loc[texts["id"] == document, "doc"].iloc[0])
    kept = {name: tables[name][tables[name]["doc"] != lost] for name in ("documents", "tokens")}
    return tables | kept


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("metric: kl.mean, max: 1%", "PASS"),
        ("metric: kl.mean, max: 0.0001", "PASS"),
        ("metric: nll.shift, max: 0.0", "PASS"),
        ("metric: perplexity.candidate, max: 0.1%", "PASS"),
        ("metric: kl.mean, max: -1%", "FAIL"),
        ("metric: task.score.shift, min: -9pp", "PASS"),
        ("metric: task.score.shift, min: -1pp", "INCONCLUSIVE"),  # sixty items show no more
        ("metric: top1.agreement, min: 0.0", "INCONCLUSIVE"),  # a flip may be elsewhere
        ("metric: top1.agreement, min: -0.01", "PASS"),
    ],
)
def test_the_same_candidate_keeps_its_own_values(main: Path, rule: str, verdict: str) -> None:
    """Where as many documents or items can show it."""
    assert judged(main, rule, run_of(synthetic(30))).verdict == verdict


def test_a_little_worse_is_seen_by_difference_and_not_by_two_errors(main: Path) -> None:
    """Eight per cent more KL on every document."""
    worse = run_of(synthetic(30, damage=0.208))
    result = judged(main, "metric: kl.mean, max: 5%", worse)
    assert result.verdict == "FAIL"
    assert result.threshold == pytest.approx(
        1.05 * run_of(synthetic(30)).estimate("kl.mean", {}, 0.9).value
    )
    assert "by the difference in each of 30 documents that both runs have" in result.reason
    data = json.loads(main.read_text())
    bare = main.with_name("bare.json")
    bare.write_text(
        json.dumps({k: data[k] for k in ("run", "identity", "metrics")} | {"baseline_version": 1})
    )
    result = judged(bare, "metric: kl.mean, max: 5%", worse)
    assert result.verdict == "INCONCLUSIVE"
    assert "not paired: both errors count" in result.reason


def test_both_sides_of_a_gate_have_their_own_interval(main: Path) -> None:
    """A share of the stored value is judged where that share is."""
    rule = "metric: kl.mean, max: {}, min: {}"
    run = run_of(synthetic(30))
    assert judged(main, rule.format("10%", "-10%"), run).verdict == "PASS"
    assert judged(main, rule.format("20%", "10%"), run).verdict == "FAIL"
    assert judged(main, rule.format("-10%", "-20%"), run).verdict == "FAIL"


def test_other_data_is_compared_in_what_both_have(main: Path) -> None:
    """And refused where that is nothing, or where what is gated has no parts."""
    run = run_of(without(synthetic(30), "d3"))
    result = judged(main, "metric: kl.mean, max: 1%", run, OTHER_DATA)
    assert result.verdict == "PASS"
    assert "in each of 29 documents that both runs have" in result.reason
    other = run_of(synthetic(30, seed=1))
    for rule, one in (("metric: kl.mean, max: 1%", other), ("metric: kl.median, max: 1%", run)):
        with pytest.raises(InputError, match="of other data"):
            judged(main, rule, one, OTHER_DATA)


def test_a_run_of_more_documents_says_how_many_count(tmp_path: Path) -> None:
    """Those of the baseline, and its value over them."""
    stored = save(tmp_path / "b.json", run_of(without(synthetic(30), "d3")))
    result = judged(stored, "metric: kl.mean, max: 1%", run_of(synthetic(30)), OTHER_DATA)
    assert result.verdict == "PASS"
    assert "in each of 29 of 30 documents that both runs have" in result.reason


def test_items_that_ask_something_else_are_others(main: Path) -> None:
    """A task's are paired by prompt and target."""
    tables = synthetic(30)
    tables["items"].loc[:9, "prompt_hash"] = "another"
    result = judged(main, "metric: task.score.shift, min: -20pp", run_of(tables), OTHER_DATA)
    assert "in each of 50 of 60 items that both runs have" in result.reason


LEAVES = {"law": (8, 8, 400), "art": (4, 4, 200), "sea": (1, 1, 100)}
BY_SIZE = {"law": 4 / 7, "art": 2 / 7, "sea": 1 / 7}


@pytest.mark.parametrize("weights", [BY_SIZE, dict.fromkeys(LEAVES, 1 / 3)])
def test_a_group_is_judged_task_by_task(tmp_path: Path, weights: dict[str, float]) -> None:
    """By the differences of each of its tasks, which two separate errors would hide."""
    stored = save(tmp_path / "b.json", run_of(suite_of(LEAVES, {"know": weights})))
    rule = "metric: task.score.shift, scope: {group: know}, min: -1.2pp"
    fewer = {task: (up, down + 1, n) for task, (up, down, n) in LEAVES.items()}
    run = run_of(suite_of(fewer, {"know": weights}))
    result = judged(stored, rule, run)
    assert "by the difference in each of 700 items that both runs have" in result.reason
    value = -sum(w / LEAVES[task][2] for task, w in weights.items())
    assert result.observed == pytest.approx(value)
    assert result.threshold == pytest.approx(-0.012)
    parts = [tango(0, 1, n, 0.9) for _, _, n in LEAVES.values()]
    low = mean_of_parts(parts, list(weights.values())).low
    assert low is not None
    assert result.low is not None
    assert low - 0.003 < result.low <= low + 1e-12
    # A task that the baseline has not: nothing is left to compare with.
    more = run_of(
        suite_of(LEAVES | {"sky": (0, 0, 50)}, {"know": dict.fromkeys(["sky", "law"], 0.5)})
    )
    with pytest.raises(InputError, match="of other data"):
        judged(stored, rule, more, OTHER_DATA)


def test_another_window_makes_other_documents(main: Path) -> None:
    """The same tokens have another context."""
    run = run_of(synthetic(30), suite={**MANIFEST["suite"], "window": {"tokens": 7}})
    with pytest.raises(InputError, match="of other data"):
        judged(main, "metric: kl.mean, max: 1%", run, OTHER_DATA)


def test_a_run_that_could_stop_early_keeps_only_its_intervals(tmp_path: Path) -> None:
    """It stopped because its sums were good."""
    early = run_of(synthetic(40), stop_early={"rule": "sequence", "tuned_for": 20})
    assert collect(early).series == []
    stored = save(tmp_path / "b.json", early)
    result = judged(stored, "metric: kl.mean, max: 90%", run_of(synthetic(40)))
    assert "not paired: both errors count" in result.reason


@pytest.mark.parametrize(
    ("early", "wider"),
    [
        ({"rule": "sequence", "tuned_for": 20}, 1.15),
        ({"rule": "looks", "looks": 5, "taken": [0.2]}, 1.5),
    ],
)
def test_a_run_that_stops_early_is_judged_by_a_wider_difference(
    tmp_path: Path, early: dict[str, Any], wider: float
) -> None:
    """The whole baseline is there; this run's look at it may be its last."""
    stored = save(tmp_path / "b.json", run_of(synthetic(40)))
    rule, worse = "metric: nll.shift, max: 0.01", synthetic(40, damage=0.25)
    once, look = (judged(stored, rule, run_of(worse, stop_early=stop)) for stop in (None, early))
    assert once.high is not None
    assert look.high is not None
    assert look.high - look.observed > wider * (once.high - once.observed)


def test_a_metric_with_a_sign_is_judged_by_both(tmp_path: Path) -> None:
    """A share of a shift around 0 is above it or below: nobody knows."""
    run = run_of(synthetic(30))
    stored = save(tmp_path / "b.json", run)
    low, high = (run.estimate("nll.shift", {}, 0.9).model_dump()[k] for k in ("low", "high"))
    assert low < 0 < high
    half = 0.5 * (high - low) / 2
    result = judged(stored, "metric: nll.shift, max: 50%", run)
    assert result.verdict == "INCONCLUSIVE"
    assert result.low < result.observed - 0.5 * half
    assert result.high > result.observed + 0.5 * half


def test_what_is_kept_comes_back_as_it_was(main: Path) -> None:
    """Every mean in every scope, to the last bit; and a corpus takes no room of its own."""
    run, kept = run_of(synthetic(30)), load_baseline(main)
    count = 0
    for id, metric in REGISTRY.items():
        for scope in run.scopes(id):
            found = outcomes(metric, run.evidence, scope)
            stored = kept.outcomes(id, scope)
            assert (found is None) == (stored is None)
            if found is None or stored is None:
                continue
            count += 1
            for name in ("keys", "sums", "counts"):
                assert np.array_equal(getattr(found, name), getattr(stored, name))
    assert count > 50
    sums = {s.sums for s in kept.kept.series if s.metric == "kl.mean" and "task" not in s.scope}
    assert len(sums) == 1


def _set(key: str, value: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        next(s for s in data["series"] if s["metric"] == "kl.mean")[key] = value

    return change


def _pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def _array(text: str, key: str = "sums") -> Change:
    def change(data: dict[str, Any]) -> None:
        data["arrays"]["bad"] = text
        _set(key, "bad")(data)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("sums", "nowhere"), "there is no array 'nowhere'"),
        (_set("size", 31), "does not hold 31 numbers"),
        (_set("size", 10**9), "less than or equal to 10000000"),
        (_array("?"), "'bad' cannot be read"),
        (_array(base64.b64encode(b"no zlib").decode()), "'bad' cannot be read"),
        (_array(_pack(bytes(10**8))), "'bad' does not hold 30 numbers"),
        (_array(_pack(np.full(30, np.nan).tobytes())), "sums must be finite"),
        (_array(_pack(np.zeros(30).tobytes()), "counts"), "counts above 0"),
        (_array(_pack(bytes(240)), "keys"), "keys must rise"),
        (_array(_pack(bytes(4)), "rows"), "'bad' picks nothing"),
    ],
)
def test_outcomes_that_are_not_whole_are_refused(
    main: Path, tmp_path: Path, change: Change, message: str
) -> None:
    """Also where the hash is that of what was changed, and without unpacking more than is due."""
    data = json.loads(main.read_text())
    change(data["outcomes"])
    path, rest = tmp_path / "bad.json", {k: v for k, v in data.items() if k != "digest"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(rest | {"digest": digest}))
    with pytest.raises(InputError, match=message):
        judged(path, "metric: kl.mean, max: 1%", run_of(synthetic(30)))
