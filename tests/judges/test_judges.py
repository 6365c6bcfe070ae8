"""Five judges, one decision: exit code, pytest, JUnit, annotations and report of random policies.

``EVALHARNESS_FUZZED=2000 pytest tests/judges`` tries as many policies on each damaged run.
"""

from __future__ import annotations

import math
import os
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import evalharness
from evalharness.errors import InputError
from evalharness.gates import Decision, Policy, load_policy
from evalharness.metrics import REGISTRY
from evalharness.report import render_html, render_junit, render_markdown
from evalharness.report.github import annotations
from evalharness.spec.result import Result
from tests.judges.damaged import DAMAGE, Judged, judged
from tests.judges.policies import random_policy
from tests.pytest_plugin.fake_api import PLUGIN

pytest_plugins = ["pytester"]
FUZZED = int(os.environ.get("EVALHARNESS_FUZZED", "10"))
PAGES = 50  # policies to a page
QUICK = ("NaN, and said so", "an anomaly beside good numbers", "empty")  # of the unit tests


class Outcomes:
    """What became of each policy's items in a session."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.seen: set[str] = set()

    def pytest_collectreport(self, report: Any) -> None:
        """A policy that cannot be read is an error of its file."""
        if report.failed:
            self.bad.add(Path(report.nodeid).name)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Everything else is an item."""
        name = report.nodeid.partition("::")[0]
        self.seen.add(name)
        if report.failed:
            self.bad.add(name)


def in_pytest(pytester: pytest.Pytester, run: Judged) -> Outcomes:
    """A session over every policy of the folder."""
    found = Outcomes()
    args = (*PLUGIN, "--continue-on-collection-errors", "-W", "ignore", "-p", "no:terminal")
    pytester.inline_run(*args, "--evalharness-run", run.path, plugins=[found])
    return found


@pytest.mark.parametrize(
    "title", [t if t in QUICK else pytest.param(t, marks=pytest.mark.e2e) for t in DAMAGE]
)
def test_the_five_judges_say_the_same(
    title: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is green where something is anomalous, missing or no number."""
    run = judged(title)
    api = types.ModuleType("evalharness.api")
    decided: dict[str, Decision | InputError] = {}

    def check(_: Any, path: Path) -> Decision:
        found = decided[path.name]
        if isinstance(found, InputError):
            raise found
        return found

    api.load_run = lambda path: run  # type: ignore[attr-defined]
    api.check = check  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "evalharness.api", api)
    monkeypatch.setattr(evalharness, "api", api, raising=False)
    policies: dict[str, Policy] = {}
    for seed in range(FUZZED):
        file = pytester.path / f"p{seed}.yaml"
        file.write_text(random_policy(seed))
        try:
            policies[file.name] = load_policy(file)
            decided[file.name] = run.decide(policies[file.name])
        except InputError as error:  # exit 2; anything else is a traceback, and fails here
            decided[file.name] = error
    outcomes = in_pytest(pytester, run)
    assert outcomes.seen | outcomes.bad == decided.keys()
    codes: Counter[int] = Counter()
    for name, decision in decided.items():
        said = (pytester.path / name).read_text()
        if isinstance(decision, InputError):
            codes[2] += 1
            assert name in outcomes.bad, said
            continue
        codes[decision.exit_code] += 1
        result = run.result(decision)
        assert greens(result, name in outcomes.bad) == [decision.exit_code == 0] * 4, said
        assert f"exit code {decision.exit_code} (" in render_markdown(result), said
        check_green(decision, policies[name], run, said)
    print(f"{title}: {dict(codes)}")
    assert codes[1] + codes[3] > FUZZED / 4


@pytest.mark.parametrize(
    "title", [t if t in QUICK else pytest.param(t, marks=pytest.mark.e2e) for t in DAMAGE]
)
def test_the_page_says_what_was_decided(title: str, tmp_path: Path) -> None:
    """Of fewer policies: a page takes half a second. Apart: sessions forget modules."""
    run = judged(title)
    for seed in range(0, FUZZED, PAGES):
        file = tmp_path / "p.yaml"
        file.write_text(random_policy(seed))
        try:
            decision = run.decide(load_policy(file))
        except InputError:
            continue
        page = render_html(run.result(decision))
        assert f"exit code {decision.exit_code}, " in page, file.read_text()
        assert f"<title>{decision.verdict}: " in page, file.read_text()


def greens(result: Result, failed: bool) -> list[bool]:
    """What the exit code, pytest, JUnit and the annotations say: True is green."""
    junit = ET.fromstring(render_junit(result))
    objects = junit.find(".//failure") is not None or junit.find(".//error") is not None
    lines = annotations(result)
    return [
        result.exit_code == 0,
        not failed,
        not objects,
        not any(line.startswith("::error") for line in lines),
    ]


def check_green(decision: Decision, policy: Policy, run: Judged, said: str) -> None:
    """A PASS has nothing to hide, and what is let through is by the policy's own word."""
    counted = [g for g in decision.gates if g.severity == "error" and g.waiver is None]
    if decision.verdict == "PASS":
        assert not run.anomalies, said
        assert all(g.verdict == "PASS" for g in counted), said
        for g in counted:
            assert g.observed is not None, said
            assert math.isfinite(g.observed), said
        assert any(
            g.observed is not None and not REGISTRY[g.metric].deterministic
            for g in decision.gates
            if g.severity == "error"
        ), said
    elif decision.exit_code == 0:
        lets = {policy.on_anomalous, policy.on_incomplete}
        lets |= {x for g in policy.gates for x in (g.on_inconclusive, g.on_anomalous)}
        assert "warn" in lets, said
        if run.anomalies:
            assert "warn" in {policy.on_anomalous, *(g.on_anomalous for g in policy.gates)}, said
