"""The search, the repair it writes, and what it says when there is none."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import yaml

from evalharness.api import compare
from evalharness.bisect.run import bisect, replay
from evalharness.errors import InputError, Interrupted
from evalharness.gates import load_policy
from evalharness.run.directory import Run
from evalharness.spec.model import load_model_spec
from tests.workflow.jobs import compared

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


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
        "version: 1\nname: tiny\ndefaults: {min_n: 2}\ngates:\n  - {metric: kl.mean, max: 0.02}\n"
    )
    compared(project)
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

    def make(bits: int = 2, limit: float = 0.3, extra: str = "") -> Path:
        (project / "candidate.yaml").write_text(
            f"from: base.yaml\nname: int{bits}\n"
            f"simulate: {{weights: {{bits: {bits}, granularity: channel, symmetric: true}}}}\n"
        )
        (project / "gates.yaml").write_text(
            f"version: 1\nname: tiny\ndefaults: {{min_n: 2}}\n"
            f"gates:\n  - {{metric: kl.mean, max: {limit}}}\n{extra}"
        )
        compared(project)
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
    from evalharness.bisect.trials import Trials

    path = run(limit=0.1)
    attempt, calls = Trials.attempt, itertools.count()

    def broken(self: Any, names: Any, beside: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return attempt(self, names, beside)

    monkeypatch.setattr(Trials, "attempt", broken)
    with pytest.raises(Interrupted) as caught:
        bisect(path, device="cpu", evaluations=99)
    assert str(caught.value) == (
        "interrupted. What was recorded is kept. Resume with: "
        f"evalharness bisect {path} --evaluations 99 --device cpu"
    )
    kept = (path / "bisect.jsonl").read_text().splitlines()
    assert len(kept) == 2
    monkeypatch.setattr(Trials, "attempt", attempt)
    repair = bisect(path)
    rows = (path / "bisect.jsonl").read_text().splitlines()
    assert rows[:2] == kept
    assert len({tuple(json.loads(r)["restored"]) for r in rows}) == len(rows) == repair.evaluations


def test_a_run_that_passes_needs_no_repair(run: Callable[..., Path]) -> None:
    path = run(bits=8, limit=100)
    with pytest.raises(InputError, match="the run passes tiny: there is nothing to repair"):
        bisect(path)


def test_what_no_search_decides_is_said_before_a_model_is_loaded(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run(bits=8, limit=100, extra="  - {metric: weights.bits_per_weight, max: 4}\n")
    monkeypatch.setattr("evalharness.engines.loading.load", None)
    expected = r"what stands in the way is weights.bits_per_weight \(FAIL\)"
    with pytest.raises(InputError, match=expected):
        bisect(path)


def test_an_edited_run_is_refused(run: Callable[..., Path]) -> None:
    path = run()
    file = next((path / "records").glob("tokens-*.parquet"))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(InputError, match="was changed after the run"):
        bisect(path)


def test_the_repair_is_reproduced_by_comparing_its_file(
    run: Callable[..., Path], project: Path
) -> None:
    """``evalharness compare base.yaml repair.yaml`` gives the verdict that bisect promised."""
    path = run(limit=0.3)
    repair = bisect(path)
    assert repair.verdict_after == "PASS"
    first = (path / "repair.yaml").read_text().splitlines()[0]
    schema = urlparse(first.removeprefix("# yaml-language-server: $schema="))
    assert Path(unquote(schema.path)).name == "spec.json"
    assert Path(unquote(schema.path)).is_file()
    again = compare(
        project / "base.yaml",
        path / "repair.yaml",
        suite=project / "suite.yaml",
        gates=project / "gates.yaml",
        out=project / "again",
    )
    assert again.result.verdict == "PASS"


def test_any_evaluation_can_be_made_again(run: Callable[..., Path]) -> None:
    """To the last bit, although the search left blocks out and the replay does not."""
    path = run(limit=0.3)
    repair = bisect(path)
    for number in (1, repair.evaluations):
        row, again = replay(path, number)
        assert again.decision.verdict == row["verdict"]
        now = [
            {"id": g.id, "verdict": g.verdict, "observed": g.observed, "bound": g.bound}
            for g in again.decision.gates
        ]
        assert now == row["gates"]
    with pytest.raises(InputError, match=f"must be an evaluation of this bisect, 1 to {number}"):
        replay(path, number + 1)


def test_a_killed_bisect_goes_on_to_the_same_answer(run: Callable[..., Path]) -> None:
    path = run(limit=0.1)
    whole = path.with_name("whole")
    shutil.copytree(path, whole)
    expected = bisect(whole)
    command = [sys.executable, "-m", "evalharness", "bisect", str(path), "-q"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = path / "bisect.jsonl"
    while not log.is_file() or log.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = log.read_text()
    with open(log, "a") as file:
        file.write('{"key": "half a li')
    repair = bisect(path)
    assert log.read_text().startswith(kept)
    assert repair.restored == expected.restored
    assert repair.evaluations == expected.evaluations
    assert repair.verdict_after == expected.verdict_after


def test_a_ranking_that_was_cut_off_is_made_again(run: Callable[..., Path]) -> None:
    """Killed between writing it and listing it in the manifest."""
    path = run()
    (path / "staged" / "records").mkdir(parents=True)
    (path / "staged" / "records" / "sensitivity-sensitivity.parquet").write_bytes(b"half")
    (path / "staged" / "records" / "done-sensitivity").write_text("")
    assert bisect(path).restored


def test_a_student_of_other_widths_cannot_be_repaired(
    run: Callable[..., Path], project: Path, tiny: Callable[..., Path]
) -> None:
    narrow = tiny(hidden_size=16, intermediate_size=24)
    (project / "student.yaml").write_text(
        f"version: 1\nname: student\nmodel: {{path: {narrow}, dtype: float32, device: cpu}}\n"
    )
    (project / "text.yaml").write_text(
        "version: 1\nname: text\ndefaults: {min_n: 2}\ngates:\n  - {metric: kl.mean, max: 0.001}\n"
    )
    suite = (project / "suite.yaml").read_text().replace("probes: [layers]\nlayers:", "# layers:")
    (project / "plain.yaml").write_text(suite)
    compare(
        project / "base.yaml",
        project / "student.yaml",
        suite=project / "plain.yaml",
        gates=project / "text.yaml",
        out=project / "student",
    )
    with pytest.raises(InputError, match="no linear module of student can be taken from base"):
        bisect(project / "student")


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


def test_another_model_in_the_same_place_is_refused(
    run: Callable[..., Path], project: Path, tiny: Callable[..., Path]
) -> None:
    here = project / "weights"
    shutil.copytree(tiny(), here)
    (project / "base.yaml").write_text(
        f"version: 1\nname: base\nmodel: {{path: {here}, dtype: float32, device: cpu}}\n"
    )
    path = run()
    shutil.copy(tiny(5) / "model.safetensors", here)
    with pytest.raises(InputError, match="the weights of base changed after the run"):
        bisect(path)


def test_another_configuration_of_the_same_weights_is_refused(
    run: Callable[..., Path], project: Path, tiny: Callable[..., Path]
) -> None:
    here = project / "weights"
    shutil.copytree(tiny(), here)
    (project / "base.yaml").write_text(
        f"version: 1\nname: base\nmodel: {{path: {here}, dtype: float32, device: cpu}}\n"
    )
    path = run()
    config = json.loads((here / "config.json").read_text())
    (here / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(InputError, match="the configuration of base changed after the run"):
        bisect(path)


def test_an_edited_manifest_is_refused(run: Callable[..., Path]) -> None:
    path = run()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["suite"]["batch_size"] = 7
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="was changed after the run"):
        bisect(path)


def test_a_policy_that_asks_for_more_documents_than_are_searched_on_finds_a_repair(
    run: Callable[..., Path],
) -> None:
    """Of twelve documents four are searched on and eight verify: those are what min_n counts."""
    path = run()
    policy = path.parent / "gates.yaml"
    policy.write_text(policy.read_text().replace("min_n: 2", "min_n: 8"))
    repair = bisect(path, policy=load_policy(policy))
    assert repair.restored
    assert (repair.search_documents, repair.held_out_documents) == (4, 8)
    assert repair.verdict_after == "PASS"


def test_too_few_documents_to_verify_on_are_said_before_a_model_is_loaded(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the number that it takes."""
    path = run()
    policy = path.parent / "gates.yaml"
    policy.write_text(policy.read_text().replace("min_n: 2", "min_n: 9"))
    monkeypatch.setattr("evalharness.engines.loading.load", None)
    with pytest.raises(InputError) as refused:
        bisect(path, policy=load_policy(policy))
    assert "on 8 of the run's 12 documents, and kl.mean needs 9 (the policy's min_n)" in str(
        refused.value
    )
    assert "Compare on at least 14 documents" in str(refused.value)
