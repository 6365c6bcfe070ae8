"""From synthetic records to a `Result`, through the manifest, a policy file and the builder."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from evalharness.gates import policy_from
from evalharness.results.assemble import build
from evalharness.results.judge import judge
from evalharness.run import records
from evalharness.run.directory import InMemory
from evalharness.spec.result import Result
from evalharness.spec.yamlfile import parse_yaml

from .manifest import CANDIDATE, manifest
from .modules import cka, modules
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
    if pair.same:
        known["sides"]["candidate"] = known["sides"]["reference"]
    if not pair.warnings:
        known["warnings"] = []
    kept = {name: table for name, table in tables.items() if name not in pair.without}
    return InMemory(known, kept)


@cache
def result(pair: Pair, policy: str) -> Result:
    """What ``policy``, the text of a YAML file, comes to on a run."""
    rules = policy_from(parse_yaml(policy, Path("gates/default.yaml")))
    measured = run(pair)
    return build(measured, *judge(measured, rules))
