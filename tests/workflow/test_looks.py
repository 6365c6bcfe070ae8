"""Looks on kept sums decide what reading every record again decides, and cost the same each."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from evalharness.errors import InputError
from evalharness.gates import Policy, collect
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.metrics.kept_sums import KeptEstimates, KeptSums
from evalharness.results.judge import decide_on, judge
from evalharness.run.directory import InMemory, Run
from evalharness.run.part import Part
from evalharness.testing.records import Arrow, Tables, synthetic
from evalharness.workflow.stopping import Looks
from tests.gates.fakes import policy
from tests.judges.policies import random_policy
from tests.synthetic.manifest import manifest

DOCUMENTS, IN_BLOCK = 32, 4
LOOKED_AT = (0, 4, 7)
OF_TEXTS = ("tokens", "documents", "layers", "routing", "anomalies")


@cache
def drawn() -> Tables:
    """Documents, the second corpus and a value of an attribute from the middle on."""
    tables = synthetic(DOCUMENTS)
    docs = tables["documents"]
    docs["corpus"] = np.where(docs["doc"] < DOCUMENTS // 2, "a", "b")
    docs.loc[docs["doc"] == DOCUMENTS - 1, "attributes"] = json.dumps({"kind": "rare"})
    return {k: v for k, v in tables.items() if k in OF_TEXTS}


def recorded(path: Path, tables: Tables) -> Run:
    """A run of these tables in blocks, that may stop by a sequence."""
    known: Any = manifest(str, 1, tables["documents"].to_dict("records"))
    known |= {"noise_floor": {}, "same_text": REPEATED if path.name == "repeated" else []}
    known |= {"stop_early": {"rule": "sequence", "tuned_for": 30}}
    run = Run.create(path, known)
    for number in range(DOCUMENTS // IN_BLOCK):
        of = range(number * IN_BLOCK, (number + 1) * IN_BLOCK)
        own = {k: v[v["doc"].isin(of)] for k, v in tables.items() if "doc" in v}
        if number == 3 and "anomalies" in tables:
            own["anomalies"] = tables["anomalies"]
        run.write_block(f"{number:05d}", dict(Arrow(own)))
    return run


def nothing(tables: Tables) -> Tables:
    return tables


def nan(tables: Tables) -> Tables:
    tokens = tables["tokens"].copy()
    tokens.loc[tokens["doc"] == 14, ["kl", "nll_cand"]] = np.nan
    said = pd.DataFrame([{"kind": "nonfinite logits", "message": "candidate: NaN logits"}])
    return {**tables, "tokens": tokens, "anomalies": said}


def unsaid(tables: Tables) -> Tables:
    """NaN that no anomaly speaks of."""
    return {k: v for k, v in nan(tables).items() if k != "anomalies"}


def repeated(tables: Tables) -> Tables:
    """Documents of one text in the same block and in several."""
    return tables


REPEATED = [[2, 3, 17], [5, 9], [21, 22, 23, 30]]


def unscored(tables: Tables) -> Tables:
    """Documents at the ends of blocks without records, and bytes that are not known."""
    gone = (3, 4, 14)
    left = {k: v[~v["doc"].isin(gone)] for k, v in tables.items()}
    documents = left["documents"].copy()
    documents.loc[documents["doc"] > 20, "bytes_ref"] = -1
    return {**left, "documents": documents}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same run, with NaN, and with documents missing."""
    root = tmp_path_factory.mktemp("runs")
    ways: tuple[Callable[[Tables], Tables], ...] = (nothing, nan, unsaid, unscored, repeated)
    return {way.__name__: recorded(root / way.__name__, way(drawn())) for way in ways}


def verdict(made: Callable[[], Any]) -> Any:
    """Each gate's verdict, with its numbers where its metric has sums; or what is wrong."""
    try:
        decision = made()
    except InputError as error:
        return error.message
    return [
        (g.id, g.verdict, *((g.low, g.high, g.observed) if REGISTRY[g.metric].totals else ()))
        for g in decision.gates
    ]


def looked(run: Run, held: Policy) -> list[tuple[Any, Any]]:
    """At three looks: what kept sums and what all records say."""
    kept, blocks, found = KeptSums(run), [], []
    for number, block in enumerate(sorted(run.done())):
        blocks.append(block)
        kept.add(block)
        if number not in LOOKED_AT:
            continue
        now = list(blocks)
        found.append(
            (
                verdict(lambda: decide_on(KeptEstimates(kept), held)[0]),
                verdict(lambda now=now: judge(Part(run, now), held)[1]),  # type: ignore[misc]
            )
        )
        kept.close()
    return found


MEANS = """
    gates:
      - {metric: kl.mean, max: 0.02}
      - {metric: kl.mean, max: 0.03, scope: {corpus: "*"}, aggregate: mean}
      - {metric: perplexity.ratio, max: 1.02, unless: {any: [{metric: kl.p99, max: 1}], max: 1.1}}
      - {metric: top1.agreement, min: 80%, scope: {slice: start}}
      - {metric: top5.overlap, min: 80%, scope: {slice: "kind=*"}, each: true}
      - {metric: bits_per_byte.shift, max: 0.1}
      - {metric: calibration.score.shift, max: 0.1}
      - {metric: logit.exceed_rate, max: 50%, scope: {bound: "0.5", slice: "kind=x"}}
      - {metric: entropy.shift, max: 0.1, decide: point}
"""


@pytest.mark.parametrize("way", ["nothing", "nan", "unsaid", "unscored", "repeated"])
def test_kept_sums_give_what_all_records_give(runs: dict[str, Run], way: str) -> None:
    """To the last bit, in every block, for means in all kinds of scope."""
    for kept, read in looked(runs[way], policy(MEANS)):
        assert kept == read
    assert isinstance(read, list)


@pytest.mark.parametrize("seed", range(9))
def test_random_policies_are_decided_alike(runs: dict[str, Run], seed: int, tmp_path: Path) -> None:
    """Quantiles, layers, tasks that come later, waivers, trade-offs, scopes that match nothing."""
    run = runs[("nothing", "nan", "unscored", "repeated")[seed % 4]]
    try:
        held = policy(random_policy(1000 + seed))
    except InputError:
        return  # refused before anything is measured
    for kept, read in looked(run, held):
        assert kept == read


@pytest.mark.parametrize("way", ["nothing", "nan", "unsaid", "unscored", "repeated"])
def test_kept_sums_are_held_against_a_stored_run_as_records_are(
    runs: dict[str, Run], way: str
) -> None:
    """Document by document, of those that have come."""
    run, kept, blocks = runs[way], KeptSums(runs[way]), []
    stored = collect(
        Estimates(Evidence(InMemory({**run.manifest, "stop_early": None}, Arrow(drawn()))))
    )
    for number, block in enumerate(sorted(run.done())):
        blocks.append(block)
        kept.add(block)
        if number not in LOOKED_AT:
            continue
        read = Estimates(Evidence(Part(run, blocks)))
        for metric, scope in (
            ("kl.mean", {}),
            ("nll.shift", {"corpus": "a"}),
            ("top1.agreement", {"slice": "start"}),
            ("bits_per_byte.shift", {}),
            ("logit.exceed_rate", {"bound": "1"}),
        ):
            assert stored.find(metric, scope) is not None
            found = [
                e.against(metric, scope, stored.find, 1.1, 0.9) for e in (KeptEstimates(kept), read)
            ]
            assert found[0] == found[1]
            assert found[0] is not None or way != "nothing"
        kept.close()


def test_a_look_reads_one_block(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many came before, and each once where a run is taken up."""
    run = runs["nothing"]
    looks = Looks(run, policy("gates: [{metric: kl.mean, max: 1.0e-9}, {metric: kl.p99, max: 1}]"))
    files: list[str] = []
    real = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda f: files.append(f.name) or real(f))
    reads = []
    for block in sorted(run.done()):
        looks.add(block)
        files.clear()
        assert not looks.decided()
        reads.append(len(files))
    assert len(set(reads[1:])) == 1
    assert all(block in name for name in files)
    again = Looks(run, policy("gates: [{metric: kl.mean, max: 1.0e-9}, {metric: kl.p99, max: 1}]"))
    for block in sorted(run.done()):
        again.add(block)
    files.clear()
    again.decided()
    assert len(files) <= reads[0] * len(run.done())


def test_a_look_is_at_the_blocks_before_it_alone(runs: dict[str, Run], tmp_path: Path) -> None:
    """Tasks and later blocks that a run holds which is taken up would change what is decided."""
    run = runs["nothing"]
    held = policy(
        "gates: [{metric: top1.agreement, min: 99.9%}, {metric: task.score.shift, min: -1}]"
    )
    plain, full = Looks(run, held), recorded(tmp_path / "full", drawn())
    tables = synthetic(DOCUMENTS)
    full.write_block("task-quiz", dict(Arrow({k: tables[k] for k in ("items", "tasks")})))
    taken_up = Looks(full, held)
    decided = []
    for block in sorted(run.done()):
        plain.add(block)
        taken_up.add(block)
        decided.append(plain.decided())
        assert taken_up.decided() == decided[-1]
    assert decided[0] is False
    assert decided[-1] is True
