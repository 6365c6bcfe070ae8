"""A whole comparison on tiny models: plan, measure, finish, and everything that is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from evalharness import api
from evalharness.cli.main import app
from evalharness.data.documents import read_texts
from evalharness.errors import EvalHarnessError, InputError
from evalharness.metrics import REGISTRY, Evidence
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.spec.schemas import schemas
from evalharness.spec.suite import load_suite
from evalharness.workflow.compare import compare
from evalharness.workflow.measure import measure_pair
from evalharness.workflow.plan import plan_job
from evalharness.workflow.seal import finish

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


def job(project: Path, out: str | None = "run", **more: Any) -> Any:
    files = {"base": "base.yaml", "candidate": "candidate.yaml"} | {
        k: more.pop(k) for k in ("base", "candidate") if k in more
    }
    options: dict[str, Any] = {
        "suite": project / "suite.yaml",
        "gates": project / "gates.yaml",
        "out": project / out if out else None,
    }
    return plan_job(project / files["base"], project / files["candidate"], **(options | more))


def cli(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, errors mapped as `main` maps them."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, EvalHarnessError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_a_gate_may_be_on_the_divergence_where_a_task_is_scored(project: Path) -> None:
    """From the same pass as the scores; it is decided, shown, and stands when gated again."""
    task = Path(__file__).parents[1] / "data" / "lm_tasks" / "choose.yaml"
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text() + f"tasks:\n  - {{path: {task}}}\n")
    (project / "gates.yaml").write_text(
        'version: 1\ngates:\n  - {id: drift, metric: kl.mean, scope: {task: "cho*"}, max: 1.0e-6}\n'
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
    """Timings, the time of day and the directory apart."""
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

    from evalharness.engines import load as module

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


def test_gate_report_and_show_work_without_torch(project: Path) -> None:
    """In a fresh process, from the run directory alone."""
    _, run = compare(job(project))
    code = (
        "import sys\nfrom evalharness.cli.main import app\n"
        "for args in (['gate', {0!r}], ['report', {0!r}], ['show', {0!r}]):\n"
        "    try: app(args)\n"
        "    except SystemExit as e: print('exit', e.code)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    ).format(str(run.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert codes == ["exit 1", "exit 0", "exit 0"]


def test_gating_again_gives_the_same_result(project: Path) -> None:
    """And another policy another verdict."""
    before, run = compare(job(project))
    policy = project / "loose.yaml"
    policy.write_text("version: 1\ngates:\n  - {metric: kl.mean, max: 1000}\n")
    code, out, _ = cli("gate", run.path, "--gates", policy, "--format", "json")
    assert (code, json.loads(out)["verdict"]) == (0, "PASS")
    code, out, _ = cli("gate", run.path, "--gates", project / "gates.yaml", "--format", "json")
    assert code == 1
    assert json.loads(out)["metrics"] == json.loads(before.model_dump_json())["metrics"]


def test_the_api_gives_estimates_of_a_stored_run(project: Path) -> None:
    """load_run, metric and check."""
    result, run = compare(job(project))
    loaded = api.load_run(run.path)
    stored = next(m for m in result.metrics if m.id == "kl.mean" and m.scope == {})
    assert loaded.metric("kl.mean") == stored
    assert api.check(loaded, project / "gates.yaml").verdict == "FAIL"


def test_nothing_but_the_result_reaches_stdout(project: Path) -> None:
    """Progress goes to stderr."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "evalharness",
            "compare",
            "base.yaml",
            "candidate.yaml",
            "--suite",
            "suite.yaml",
            "--gates",
            "gates.yaml",
            "--out",
            "o",
            "--format",
            "json",
        ],
        capture_output=True,
        text=True,
        cwd=project,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdict"] == "FAIL"
    assert "loading base" in done.stderr


def test_help_starts_without_heavy_imports() -> None:
    """`--help` is parsed before pandas, scipy or torch are needed."""
    code = (
        "import sys\nfrom evalharness.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'matplotlib', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def refused(project: Path, **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        measure_pair(job(project, **more), Progress())
    assert caught.value.exit_code == 2
    assert not (project / "run").exists()
    return str(caught.value).replace(str(project) + "/", "")


def test_an_output_directory_that_holds_another_run_is_refused(project: Path) -> None:
    """And is left as it was."""
    compare(job(project))
    before = (project / "run" / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="--out: holds another run"):
        job(project)
    assert (project / "run" / "manifest.json").read_bytes() == before


def test_a_path_that_is_no_model_is_refused(project: Path) -> None:
    """A directory without a config."""
    (project / "empty").mkdir()
    (project / "bad.yaml").write_text("name: x\nmodel: {path: ./empty}\n")
    assert "config.json" in refused(project, candidate="bad.yaml")


def test_vocabularies_of_different_size_are_refused(project: Path, tiny: Any) -> None:
    """The message says what is impossible and what still runs."""
    (project / "big.yaml").write_text(
        f"name: big\nmodel: {{path: {tiny(vocab_size=310)}, dtype: float32, device: cpu}}\n"
    )
    text = refused(project, candidate="big.yaml")
    assert "the vocabularies differ in size (base: 300, big: 310)" in text
    assert "Bits per byte and tasks still run: set `tokenizers: different`" in text


def test_bits_per_byte_runs_across_tokenizers(project: Path, tiny: Any) -> None:
    """With the suite's leave; token metrics are absent, not zero."""
    (project / "big.yaml").write_text(
        f"name: big\nmodel: {{path: {tiny(vocab_size=310)}, dtype: float32, device: cpu}}\n"
    )
    suite = project / "suite.yaml"
    text = suite.read_text().replace("probes: [layers]\nlayers: {windows: 4}\n", "")
    suite.write_text(text + "tokenizers: different\n")
    (project / "gates.yaml").write_text(
        "version: 1\ngates:\n  - {metric: bits_per_byte.shift, max: 100}\n"
    )
    result, _ = compare(job(project, candidate="big.yaml"))
    ids = {m.id for m in result.metrics}
    assert "bits_per_byte.shift" in ids
    assert "kl.mean" not in ids
    assert result.verdict == "PASS"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("gates.yaml", "gates:\n  - {metric: kl.men, max: 1}\n", "kl.mean"),
        ("suite.yaml", "name: s\ncorpora:\n  - {name: a, path: none.txt}\n", "no such file"),
        ("suite.yaml", "name: s\ntasks:\n  - {name: mmlu_dev_cloz}\n", "mmlu_dev_cloze"),
        ("candidate.yaml", "from: bas.yaml\nname: x\n", "candidate.yaml:1: from: no such file"),
        (
            "candidate.yaml",
            "from: base.yaml\nname: x\nmodl: 3\n",
            "candidate.yaml:3: modl: unknown key. Did you mean 'model'?",
        ),
    ],
)
def test_bad_input_is_refused_before_any_model_is_loaded(
    project: Path, file: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, nothing written."""
    (project / file).write_text(text)
    monkeypatch.setattr("evalharness.engines.load.load", lambda *a, **k: pytest.fail("loaded"))
    assert expected in refused(project)


def test_a_limit_of_zero_is_refused(project: Path) -> None:
    """It would measure nothing."""
    assert refused(project, limit=0).startswith("--limit: must be at least 1 (got 0)")


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


def test_the_finish_is_repeatable(project: Path) -> None:
    """Judging the same records twice writes the same bytes."""
    _, run = compare(job(project))
    first = (run.path / "result.json").read_bytes()
    finish(run, job(project, "other").policy)
    assert (run.path / "result.json").read_bytes() == first


def _many_documents(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 short documents in blocks of four, and a gate that a 2-bit copy clearly fails."""
    from tests.conftest import TEXT

    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 400)
    rows = [{"id": f"e{i}", "text": (TEXT[i % 50 :] + TEXT)[:150]} for i in range(120)]
    (project / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (project / "suite.yaml").write_text(
        f"name: many\ncorpora:\n  - {{name: texts, path: {project / 'texts.jsonl'}}}\n"
        "window: {tokens: 32}\n"
    )
    (project / "gates.yaml").write_text("gates:\n  - {metric: top1.agreement, min: 99.9%}\n")


def test_stopping_early_measures_less_and_says_so(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear failure is decided on a part of the documents, with the sequence's own interval."""
    _many_documents(project, monkeypatch)
    result, run = compare(job(project, stop_early=True))
    gate = result.gates[0]
    assert gate.verdict == "FAIL"
    agreement = next(m for m in result.metrics if m.id == "top1.agreement")
    assert agreement.method == "asymptotic confidence sequence"
    assert 30 <= agreement.clusters < 120
    assert any("of 120 documents were measured" in w for w in result.warnings)
    quantile = next(m for m in result.metrics if m.id == "kl.p99")
    assert quantile.low is None
    assert "after stopping early" in (quantile.reason or "")
    again, _ = finish(run, job(project, "other").policy), None
    assert again.gates[0].low == gate.low


def test_a_dry_run_loads_no_weights_and_says_what_it_would_do(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents, windows, slices and gates; no directory is made."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("evalharness.engines.load.load", refuse)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    code, out, _ = cli(
        "compare",
        project / "base.yaml",
        project / "candidate.yaml",
        "--suite",
        project / "suite.yaml",
        "--gates",
        project / "gates.yaml",
        "--out",
        project / "run",
        "--dry-run",
    )
    assert code == 0
    assert out.startswith("ok: every input is valid; no weights were loaded")
    for text in ("12 documents, ", " windows, ", "slice    odd: 6 documents", "top1.agreement"):
        assert text in out
    assert not (project / "run").exists()


def test_attributes_are_slices_with_gates_of_their_own(project: Path) -> None:
    """One verdict a value; the noise floor in another dtype is stored beside the first."""
    suite = project / "suite.yaml"
    text = suite.read_text().replace('- {name: odd, where: {kind: "odd"}}', "- {by: kind}")
    suite.write_text(text + "noise_floor: {dtype: bfloat16}\n")
    (project / "gates.yaml").write_text(
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


def test_a_slice_that_no_document_is_in_yet_stops_nothing(project: Path) -> None:
    """With --stop-early the first look may come before a value of the attribute does."""
    rows = [json.loads(line) for line in (project / "texts.jsonl").read_text().splitlines()]
    rows = [{**r, "id": f"{r['id']}.{k}", "kind": "x"} for r in rows for k in range(4)]
    texts, _ = read_texts(load_suite(_with_kinds(project, rows)))
    last = {text.id.rpartition(":")[2] for text in texts[-2:]}
    rows = [{**r, "kind": "rare" if r["id"] in last else "x"} for r in rows]
    _with_kinds(project, rows)
    (project / "gates.yaml").write_text(
        "gates:\n  - {metric: nll.shift, scope: {slice: kind=rare}, max: 9, severity: warn}\n"
        "  - {metric: nll.shift, max: 9}\n"
    )
    planned = replace(job(project, stop_early=True), block_tokens=64)
    result, _ = compare(planned)
    assert [g.verdict for g in result.gates] == ["INCONCLUSIVE", "PASS"]


def _with_kinds(project: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (project / "texts.jsonl").write_text(text)
    suite = project / "suite.yaml"
    suite.write_text(
        suite.read_text().replace('- {name: odd, where: {kind: "odd"}}', "- {by: kind}")
    )
    return suite


def test_a_limit_inside_the_noise_floor_is_refused_before_anything_is_written(
    project: Path,
) -> None:
    """As wrong input, with the line of the limit."""
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text() + "noise_floor: {dtype: bfloat16}\n")
    with pytest.raises(InputError, match=r"gates.yaml:4: gates\[0\].max: .* inside the noise"):
        compare(job(project))
    assert not (project / "run").exists()


def test_a_claim_of_compression_that_changes_nothing_is_anomalous(project: Path) -> None:
    """The same weights are no anomaly; that somebody calls them 4 bits is."""
    (project / "claims.yaml").write_text("from: base.yaml\nname: x\nmanifest: {bits: 4}\n")
    (project / "gates.yaml").write_text("gates: [{metric: kl.mean, max: 1}]\n")
    result, _ = compare(job(project, candidate="claims.yaml"))
    assert (result.verdict, result.exit_code) == ("ANOMALOUS", 3)
    assert [a.kind for a in result.anomalies] == ["no_divergence"]


def test_runs_are_comparable_when_the_same_tokens_were_scored_in_the_same_windows(
    project: Path,
) -> None:
    """Hashes come from what was recorded: another window, or fewer documents, is other data."""
    from evalharness.results.judge import identity

    (project / "gates.yaml").write_text("gates: [{metric: kl.mean, max: 1}]\n")
    first = identity(compare(job(project, "one"))[1])
    assert identity(compare(job(project, "two"))[1]) == first
    fewer = identity(compare(job(project, "three", limit=9))[1])
    assert (fewer["tokenizer"], fewer["metrics"]) == (first["tokenizer"], first["metrics"])
    assert fewer["data"] != first["data"]
    text = (project / "suite.yaml").read_text().replace("tokens: 32", "tokens: 32, stride: 16")
    (project / "suite.yaml").write_text(text)
    assert identity(compare(job(project, "four"))[1])["data"] != first["data"]


def test_a_reader_that_leaves_does_not_change_the_exit_code(project: Path) -> None:
    """`evalharness gate RUN | head` still fails where a gate does."""
    result, run = compare(job(project))
    assert result.exit_code == 1
    command = [sys.executable, "-m", "evalharness", "gate", str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 1


def test_planned_looks_stop_early_and_stay_honest(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look that decided is reported, at its own confidence, for every metric, and again."""
    from evalharness import stats

    _many_documents(project, monkeypatch)
    result, run = compare(job(project, looks=5))
    gate = result.gates[0]
    assert gate.verdict == "FAIL"
    stop = run.manifest["stop_early"]
    assert (stop["rule"], stop["looks"]) == ("looks", 5)
    taken = stop["taken"]
    assert 1 <= len(taken) < 5
    assert taken == pytest.approx([k / 5 for k in range(1, len(taken) + 1)], abs=0.05)
    seen = round(taken[-1] * 120)
    assert any(f"{seen} of 120 documents were measured" in w for w in result.warnings)
    assert {m.clusters for m in result.metrics if m.id == "top1.agreement"} == {seen}

    evidence = Evidence(run)
    totals = REGISTRY["top1.agreement"].totals(evidence, {})
    level = stats.look_confidence(0.9, taken)
    expected = stats.cluster_skew_t(*totals, level)
    assert level > 0.9
    assert (gate.low, gate.high) == pytest.approx((expected.low, expected.high))
    shown = {m.id: m for m in result.metrics if m.scope == {}}
    look = f"O'Brien-Fleming look {len(taken)}"
    assert all(
        look in m.method
        for m in shown.values()
        if m.low is not None and m.low != m.high and not REGISTRY[m.id].deterministic
    )
    again = finish(run, job(project, "other").policy)
    assert (again.gates[0].low, again.gates[0].high) == (gate.low, gate.high)


def test_undecided_looks_measure_everything(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few tokens for a p99.9: five looks, the last at all documents, nothing left out."""
    _many_documents(project, monkeypatch)
    (project / "gates.yaml").write_text("gates:\n  - {metric: kl.p999, max: 1000}\n")
    result, run = compare(job(project, looks=5))
    taken = run.manifest["stop_early"]["taken"]
    assert (len(taken), taken[-1]) == (5, 1.0)
    assert not any("were measured" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looks": 1}, "must be from 2 to 20"),
        ({"looks": 5, "stop_early": True}, "give one of them"),
    ],
)
def test_looks_that_make_no_sense_are_refused(
    project: Path, options: dict[str, Any], message: str
) -> None:
    """Before anything is read."""
    with pytest.raises(InputError, match=message):
        job(project, **options)
