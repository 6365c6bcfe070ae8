"""`evalharness.api` on runs made by hand, and pytest sessions inside a session."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

import evalharness.metrics  # imported once: pytester takes out what is first imported inside it
from evalharness.errors import InputError
from evalharness.gates import Decision, decide, load_policy
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Anomaly
from tests.gates.fakes import FakeEstimates

# No other: Hypothesis imports itself anew in every session inside a session, two seconds each.
PLUGIN = ("--disable-plugin-autoload", "-p", "evalharness.pytest_plugin")
POLICY = """
version: 1
gates:
  - metric: kl.mean
    max: 0.05
  - metric: top1.agreement
    min: 90%
  - id: block
    metric: layer.error.total
    max: 0.2
    each: true
"""


def one(metric: str, value: float, low: float, high: float, **scope: str) -> Estimate:
    more = {"unit": evalharness.metrics.REGISTRY[metric].unit, "worst": "token at wiki/7"}
    return Estimate(
        id=metric, value=value, low=low, high=high, n=640, clusters=64, scope=scope, **more
    )


GOOD = (
    one("kl.mean", 0.02, 0.01, 0.03),
    one("top1.agreement", 0.95, 0.94, 0.96),
    one("layer.error.total", 0.1, 0.09, 0.11, layer="model.layers.0"),
    one("layer.error.total", 0.1, 0.09, 0.11, layer="model.layers.1"),
)
BAD_KL = one("kl.mean", 0.08, 0.07, 0.09)


class FakeApi(types.ModuleType):
    """Stands in for `evalharness.api`: runs are names of lists of estimates."""

    def __init__(self) -> None:
        super().__init__("evalharness.api")
        self.runs: dict[str, tuple[Estimate, ...]] = {"good": GOOD, "bad": (BAD_KL, *GOOD[1:])}
        self.compared: list[tuple[Any, ...]] = []

    def load_run(self, path: str | Path) -> Any:
        if Path(path).name not in self.runs:
            raise InputError("not a run: it has no manifest.json", path=path)
        return self._run(Path(path).name)

    def _run(self, name: str) -> Any:
        anomalies: list[Anomaly] = []
        return types.SimpleNamespace(
            estimates=FakeEstimates(*self.runs[name]), anomalies=anomalies, path=Path(name)
        )

    def check(self, run: Any, gates: Path) -> Decision:
        return decide(load_policy(gates), run.estimates, anomalies=run.anomalies)

    def compare(self, base: str, candidate: str, **options: Any) -> Any:
        self.compared.append((base, candidate, options))
        if candidate == "broken.yaml":
            raise InputError("no such file", path=candidate)
        return self._run("bad")


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, *args)
