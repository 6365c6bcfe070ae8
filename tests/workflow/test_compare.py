"""A whole comparison on tiny models: what its result, its records and its verdict are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from evalharness import api
from evalharness.run.directory import Run
from evalharness.spec.schemas import schemas
from evalharness.workflow.compare import compare
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


def test_a_comparison_writes_a_complete_valid_run(project: Path) -> None:
    """result.json validates against its schema, and every file's hash is in the manifest."""
    result, run = compare(job(project))
    assert (result.verdict, result.exit_code) == ("FAIL", 1)
    data = json.loads((run.path / "result.json").read_text())
    jsonschema.validate(data, schemas()["result"])
    for name in ("report.html", "summary.md", "junit.xml"):
        assert (run.path / name).stat().st_size > 200
    run.verify(("",))
    scopes = [m.scope for m in result.metrics if m.id == "kl.mean"]
    assert scopes == [{}, {"slice": "odd"}]
    assert len(result.layers) == 2 * (2 * 8 + 1) + 2  # total and own; inherited of the blocks
    assert {m.id for m in result.metrics if m.noise_floor is not None} >= {"kl.mean", "nll.shift"}


def test_the_same_inputs_give_the_same_result(project: Path) -> None:
    """Without timings, the time of day and the directory."""
    texts = []
    for name in ("one", "two"):
        result, _ = compare(job(project, name))
        data = result.model_dump(exclude={"created", "cost", "command"})
        data["metrics"] = [m for m in data["metrics"] if not m["id"].startswith("latency")]
        texts.append(json.dumps(data, sort_keys=True))
    assert texts[0] == texts[1]


def test_a_model_against_itself_passes_and_says_so(project: Path) -> None:
    """Every gate of the default policy that text can decide; every value at its identity."""
    (project / "same.yaml").write_text("from: base.yaml\nname: copy\n")
    result, run = compare(job(project, candidate="same.yaml"))
    assert result.exit_code == 0
    assert result.compared.same_model
    assert "a model against itself" in result.headline
    values = {m.id: m.value for m in result.metrics if m.scope == {}}
    assert values["kl.mean"] == values["nll.shift"] == values["logit.half_range"] == 0
    assert values["top1.agreement"] == values["perplexity.ratio"] == 1
    assert all(x.median == 0 and x.max_abs == 0 for x in result.layers)
    assert run.path.exists()


def test_a_killed_run_resumes_to_the_same_records(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that were done are not measured again, and the estimates are equal."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    whole, _ = compare(job(project, "whole"))

    class Killed(BaseException):
        pass

    written = 0
    write = Run.write_block

    def dying(self: Run, block: str, tables: Any) -> None:
        nonlocal written
        if written == 3:
            raise Killed
        written += 1
        write(self, block, tables)

    monkeypatch.setattr(Run, "write_block", dying)
    with pytest.raises(Killed):
        compare(job(project, "killed"))
    monkeypatch.setattr(Run, "write_block", write)
    # The dead process would have let go of its lock.
    resumed = job(project, out=None, resume=project / "killed")
    done = Run.open(project / "killed").done()
    assert len(done) == 3
    result, _ = compare(resumed)
    assert [m for m in result.metrics if not m.id.startswith("latency")] == [
        m for m in whole.metrics if not m.id.startswith("latency")
    ]


def test_nan_makes_the_run_anomalous_or_failed_but_never_a_pass(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first window, position and model are named in the result."""
    import torch

    from evalharness.engines import loading as module

    load = module.load

    def broken(spec: Any, **more: Any) -> Any:
        loaded = load(spec, **more)
        if spec.name == "int4":
            with torch.no_grad():
                loaded.model.lm_head.weight[3] = float("nan")
        return loaded

    monkeypatch.setattr(module, "load", broken)
    result, _ = compare(job(project))
    assert result.verdict in ("ANOMALOUS", "FAIL")
    assert result.exit_code != 0
    assert "int4: NaN or Inf logits" in result.anomalies[0].message
    assert all(m.value is None or np.isfinite(m.value) for m in result.metrics)


def test_a_gate_may_be_on_the_divergence_where_a_task_is_scored(project: Path) -> None:
    """From the same pass as the scores; it is decided, shown, and stands when gated again."""
    task = Path(__file__).parents[1] / "data" / "lm_tasks" / "choose.yaml"
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text() + f"tasks:\n  - {{path: {task}}}\n")
    (project / "gates.yaml").write_text(
        "version: 1\ndefaults: {min_n: 2}\ngates:\n"
        '  - {id: drift, metric: kl.mean, scope: {task: "cho*"}, max: 1.0e-6}\n'
    )
    result, run = compare(job(project))
    (gate,) = result.gates
    assert (gate.verdict, gate.scope) == ("FAIL", {"task": "choose"})
    rows = run.table("item_tokens").to_pandas()
    (kl,) = (m for m in result.metrics if m.id == "kl.mean" and "task" in m.scope)
    assert kl.value == gate.observed == pytest.approx(rows["kl"].mean(), rel=1e-6)
    assert (kl.n, kl.clusters) == (len(rows), rows["cluster"].nunique())
    assert "How far predictions moved on the tasks" in (run.path / "report.html").read_text()
    assert api.check(run.path, project / "gates.yaml").gates == result.gates


def test_bits_per_byte_runs_across_tokenizers(project: Path, tiny: Any) -> None:
    """With the suite's leave; token metrics are absent, not zero."""
    (project / "big.yaml").write_text(
        f"name: big\nmodel: {{path: {tiny(vocab_size=310)}, dtype: float32, device: cpu}}\n"
    )
    suite = project / "suite.yaml"
    text = suite.read_text().replace("probes: [layers]\nlayers: {windows: 4}\n", "")
    suite.write_text(text + "tokenizers: different\n")
    (project / "gates.yaml").write_text(
        "version: 1\ndefaults: {min_n: 2}\ngates:\n  - {metric: bits_per_byte.shift, max: 100}\n"
    )
    result, _ = compare(job(project, candidate="big.yaml"))
    ids = {m.id for m in result.metrics}
    assert "bits_per_byte.shift" in ids
    assert "kl.mean" not in ids
    assert result.verdict == "PASS"


def test_latency_is_measured_only_where_it_means_something(project: Path, tiny: Any) -> None:
    """Seconds of a pruned model are its own; those of a simulated one are the reference's."""
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text().replace("[layers]", "[layers, latency]"))
    (project / "other.yaml").write_text(
        f"name: other\nmodel: {{path: {tiny(1)}, dtype: float32, device: cpu}}\n"
    )
    result, _ = compare(job(project, candidate="other.yaml"))
    values = {m.id: m for m in result.metrics if m.id.startswith("latency")}
    assert set(values) == {"latency.prefill.ratio", "latency.decode.ratio"}
    assert all(m.value is not None and m.value > 0 for m in values.values())
    simulated, _ = compare(job(project, "simulated"))
    for metric in simulated.metrics:
        if metric.id.startswith("latency"):
            assert metric.value is None
            assert "simulated" in (metric.reason or "")


def test_attributes_are_slices_with_gates_of_their_own(project: Path) -> None:
    """One verdict a value; the noise floor in another dtype is stored beside the first."""
    suite = project / "suite.yaml"
    text = suite.read_text().replace('- {name: odd, where: {kind: "odd"}}', "- {by: kind}")
    suite.write_text(text + "noise_floor: {dtype: bfloat16}\n")
    (project / "gates.yaml").write_text(
        "defaults: {min_n: 2}\n"
        "gates:\n  - {metric: nll.shift, scope: {slice: 'kind=*'}, max: 9, each: true}\n"
        "  - {metric: layer.error.total, scope: {layer: 'model.layers.0', slice: kind=odd}, "
        "max: 9}\n"
    )
    result, run = compare(job(project))
    assert [g.id for g in result.gates[:2]] == [
        "nll.shift[slice=kind=even]",
        "nll.shift[slice=kind=odd]",
    ]
    assert {g.verdict for g in result.gates[:2]} == {"PASS"}
    assert result.gates[2].scope == {"layer": "model.layers.0", "slice": "kind=odd"}
    assert result.gates[2].observed is not None
    ways = run.manifest["noise_floor_ways"]
    assert list(ways) == ["another batch shape and attention kernel", "computed in bfloat16"]
    assert run.manifest["noise_floor"]["kl.mean"] == ways["computed in bfloat16"]["kl.mean"]


def test_a_claim_of_compression_that_changes_nothing_is_anomalous(project: Path) -> None:
    """The same weights are no anomaly; that somebody calls them 4 bits is."""
    (project / "claims.yaml").write_text("from: base.yaml\nname: x\nmanifest: {bits: 4}\n")
    (project / "gates.yaml").write_text(
        "defaults: {min_n: 2}\ngates: [{metric: kl.mean, max: 1}]\n"
    )
    result, _ = compare(job(project, candidate="claims.yaml"))
    assert (result.verdict, result.exit_code) == ("ANOMALOUS", 3)
    assert [a.kind for a in result.anomalies] == ["no_divergence"]


def test_runs_are_comparable_when_the_same_tokens_were_scored_in_the_same_windows(
    project: Path,
) -> None:
    """Hashes come from what was recorded: another window, or fewer documents, is other data."""
    from evalharness.results.judge import identity

    (project / "gates.yaml").write_text(
        "defaults: {min_n: 2}\ngates: [{metric: kl.mean, max: 1}]\n"
    )
    first = identity(compare(job(project, "one"))[1])
    assert identity(compare(job(project, "two"))[1]) == first
    fewer = identity(compare(job(project, "three", limit=9))[1])
    assert (fewer["tokenizer"], fewer["metrics"]) == (first["tokenizer"], first["metrics"])
    assert fewer["data"] != first["data"]
    text = (project / "suite.yaml").read_text().replace("tokens: 32", "tokens: 32, stride: 16")
    (project / "suite.yaml").write_text(text)
    assert identity(compare(job(project, "four"))[1])["data"] != first["data"]
