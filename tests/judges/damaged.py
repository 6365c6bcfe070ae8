"""Twelve runs, one of them good and the others damaged, each with its estimates kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from evalharness.gates import Decision, decide, find_anomalies
from evalharness.metrics import Estimates, Evidence
from evalharness.results.assemble import decided_again
from evalharness.results.judge import claims_compression
from evalharness.run.directory import InMemory
from evalharness.spec.policy import Policy
from evalharness.spec.result import Anomaly, Result
from evalharness.testing.records import Arrow, Tables, synthetic
from tests.synthetic.manifest import manifest
from tests.synthetic.pair import Pair, result
from tests.synthetic.policies import policy

NO_LOGITS = {"kl": np.nan, "nll_cand": np.nan}
NAN = pd.DataFrame([{"kind": "nonfinite logits", "message": "candidate: NaN logits"}])


def _with(tables: Tables, name: str, **columns: Any) -> Tables:
    return {**tables, name: tables[name].assign(**columns)}


def _without(tables: Tables, *names: str) -> Tables:
    return {k: v for k, v in tables.items() if k not in names}


TEXT = ("tokens", "documents")
DAMAGE: dict[str, Callable[[Tables], Tables]] = {
    "good": lambda t: t,
    "the reference twice": lambda t: synthetic(damage=0.0),
    "NaN, and said so": lambda t: {
        **_with(t, "tokens", kl=np.nan, nll_cand=np.nan),
        "anomalies": NAN,
    },
    "NaN, and not said": lambda t: _with(t, "tokens", kl=np.nan, nll_cand=np.nan),
    "an anomaly beside good numbers": lambda t: {**t, "anomalies": NAN},
    "NaN scores": lambda t: _with(t, "items", score_cand=np.nan),
    "tasks beyond the reference": lambda t: _with(t, "items", score_ref=0.0, score_cand=1.0),
    "infinite layers": lambda t: _with(t, "layers", err_sq=np.inf),
    "one document": lambda t: {
        k: v[v["doc"] == 0] if "doc" in v and k != "items" else v for k, v in t.items()
    },
    "no texts": lambda t: _without(t, *TEXT, "layers", "routing"),
    "no tasks": lambda t: _without(t, "items", "tasks", "item_tokens"),
    "empty": lambda t: {},
}


class Judged:
    """A damaged run, judged as `results.judge` does with what was estimated before."""

    def __init__(self, title: str) -> None:
        tables = DAMAGE[title](synthetic())
        rows = tables["documents"].to_dict("records") if "documents" in tables else []
        known = manifest(lambda text: text, 2, rows)
        known["noise_floor"] = {}
        self.run = InMemory(known, Arrow(tables))
        self.estimates = Estimates(Evidence(self.run))
        self.path = title
        self.anomalies = [Anomaly(kind=k, message=m) for k, m in self.estimates.evidence.anomalies]
        self.anomalies += find_anomalies(self.estimates, claims_compression(self.run))

    def decide(self, policy: Policy) -> Decision:
        """What `judge` decides of ``policy``."""
        return decide(policy, self.estimates, anomalies=self.anomalies)

    def result(self, decision: Decision) -> Result:
        """The result of ``decision``; all of it that is no decision is another run's."""
        return decided_again(self.run, some_result(), decision, self.anomalies)  # type: ignore[arg-type]


@cache
def some_result() -> Result:
    """Any result, to put decisions in."""
    return result(Pair(0.05, blocks=1, documents=6, items=0.1), policy())


@cache
def judged(title: str) -> Judged:
    """The run that is damaged in this way."""
    return Judged(title)
