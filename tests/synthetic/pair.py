"""From synthetic records to a `Result`, through the manifest, a policy file and the builder."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evalharness.gates import Policy, policy_from
from evalharness.results.assemble import build
from evalharness.results.judge import judge
from evalharness.run import records
from evalharness.run.directory import InMemory
from evalharness.spec.result import Repair, Result
from evalharness.spec.yamlfile import parse_yaml

from .manifest import CANDIDATE, manifest
from .modules import cka, modules
from .policies import policy
from .tasks import tasks
from .texts import texts


@dataclasses.dataclass(frozen=True)
class Pair:
    """What a synthetic run measured.

    Attributes
    ----------
    damage : how far the candidate's logits, answers and outputs moved.
    blocks : decoder blocks of both models.
    documents : over three corpora.
    items : share of the tasks' items.
    broken : documents on which the candidate gave NaN, which is an anomaly of the run.
    prefix : stands before every name and text that a file, a model or a corpus gives.
    unlike : the blocks have no counterpart: CKA instead of layer errors.
    without : kinds of records that the suite did not ask for.
    repair : the modules that `bisect` found; None: it was not run; none at all: it found no set.
    warnings : whether the run had any.
    same : both sides hold the same weights.

    """

    damage: float
    blocks: int = 32
    documents: int = 72
    items: float = 1.0
    broken: int = 0
    prefix: str = ""
    unlike: bool = False
    without: tuple[str, ...] = ()
    repair: tuple[str, ...] | None = None
    warnings: bool = True
    same: bool = False

    def name(self, text: str) -> str:
        """A name or text as this run has it."""
        return self.prefix + text


@cache
def run(pair: Pair) -> InMemory:
    """The manifest and the records of a run."""
    random = np.random.default_rng(7)
    tables = texts(random, pair.documents, pair.damage, pair.broken, pair.name)
    tables |= tasks(random, pair.damage, pair.items, pair.name)
    tables |= modules(random, pair.blocks, pair.documents, pair.damage, pair.name)
    if pair.unlike:
        tables |= {"cka": cka(pair.name), "layers": records.LAYERS.empty_table()}
    said = f"{CANDIDATE}: NaN or Inf logits at {pair.broken} positions"
    rows = [{"kind": pair.name("nonfinite logits"), "message": pair.name(said)}]
    tables["anomalies"] = pa.Table.from_pylist(
        rows if pair.broken else [], schema=records.ANOMALIES
    )
    known = manifest(pair.name, pair.blocks, tables["documents"].to_pylist())
    if pair.repair is not None:
        known["repair"] = _repair(pair)
    if pair.same:
        known["sides"]["candidate"] = known["sides"]["reference"]
    if {"layers", "weights"} <= set(pair.without):
        known["matching"] = None
    if not pair.warnings:
        known["warnings"] = []
    kept = {name: table for name, table in tables.items() if name not in pair.without}
    return InMemory(known, kept)


@cache
def result(pair: Pair, rules: str) -> Result:
    """What ``rules``, the text of a YAML file, comes to on a run."""
    measured = run(pair)
    return build(measured, *judge(measured, _parsed(rules)))


def _parsed(rules: str) -> Policy:
    return policy_from(parse_yaml(rules, Path("gates/default.yaml")))


def _repair(pair: Pair) -> dict[str, Any]:
    """What `bisect` writes into the manifest, with gates decided on runs like this one."""
    common: dict[str, Any] = {
        "considered": 14,
        "minimal": len(pair.repair or ()) == 1,
        "needed": 1,
        "evaluations": 23,
        "exhaustive": "14 to try each module alone, 2^14 to try every set",
        "search_documents": 24,
        "held_out_documents": 48,
        "left_out": [pair.name("arc-drop: tasks are not measured in a trial")],
    }
    rules = _parsed(policy(pair.prefix, layers="*"))
    _, before, _ = judge(run(dataclasses.replace(pair, repair=None)), rules)
    _, after, _ = judge(run(dataclasses.replace(pair, repair=None, damage=0.05)), rules)
    common |= {"before": before.gates, "verdict_before": before.verdict, "bits_before": 4.95}
    if not pair.repair:
        why = "not even the reference's own modules throughout pass on the search documents"
        return Repair(restored=None, reason=why, **common).model_dump(mode="json")
    return Repair(
        restored=[pair.name(module) for module in pair.repair],
        after=after.gates,
        verdict_after=after.verdict,
        bits_after=5.31,
        file="repair.yaml",
        **common,
    ).model_dump(mode="json")
