"""Several candidates: PASSes that hold for all of them together, by simulation and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit

from evalharness.errors import InputError
from evalharness.gates import decide
from evalharness.gates.family import by_chance, check_family, holm, stricter
from evalharness.metrics import Evidence
from evalharness.report import combined_text, render_combined
from evalharness.run.directory import InMemory
from evalharness.spec.combined import Combined
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Result
from evalharness.stats import TooFewReplicates
from evalharness.workflow import family
from evalharness.workflow.family import Member, corrected
from tests.gates.fakes import estimate, gate, policy

LIMIT = 0.01
GATE = gate(f"metric: nll.shift, max: {LIMIT}")
DOCUMENTS = 40


class Drawn:
    """The estimates of one candidate whose documents were drawn; asked at any confidence.

    Student's interval, which is exact for them: at its limit a gate passes 5% of the time.
    """

    def __init__(self, shifts: Any, most: float = 1.0) -> None:
        self.evidence = Evidence(InMemory({}, {}))
        self._shifts, self._most = shifts, most

    def scopes(self, metric: str) -> list[dict[str, str]]:
        return [{}]

    def leaves(self, scope: dict[str, str]) -> frozenset[str]:
        return frozenset()

    def noise_unknown(self, metric: str, scope: dict[str, str]) -> None:
        return None

    def estimate(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        if confidence > self._most:
            raise TooFewReplicates("too few")
        count = len(self._shifts)
        value, se = float(np.mean(self._shifts)), float(np.std(self._shifts, ddof=1)) / count**0.5
        half = float(stdtrit(count - 1, 0.5 + confidence / 2)) * se
        ends = {"low": value - half, "high": value + half, "se": se, "confidence": confidence}
        return estimate(metric, value, clusters=count, **ends)

    at_once = estimate


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, result: Any) -> Any:
    """Correct the verdicts of candidates that are given by their estimates."""

    def correct(drawn: Sequence[Drawn], rules: Any = GATE, deciding: bool = False) -> Combined:
        by_path = {Path(str(i)): one for i, one in enumerate(drawn)}
        monkeypatch.setattr(family, "open_finished", lambda path: path)
        monkeypatch.setattr(
            family,
            "judge",
            lambda path, asked: (None, decide(asked, by_path[path]), []),  # type: ignore[arg-type]
        )
        members = []
        for path, one in by_path.items():
            own = decide(rules, one)  # type: ignore[arg-type]
            changes = {k: getattr(own, k) for k in ("verdict", "exit_code", "headline")}
            made = result("PASS").model_copy(update={**changes, "candidate": f"c{path}"})
            members.append(Member(f"c{path}", path, made, own.exit_code))
        return corrected(members, rules, deciding)

    return correct


@pytest.fixture
def result(some: Result) -> Any:
    """A result of a verdict; all else is another run's."""
    return lambda verdict: some


@pytest.fixture(scope="module")
def some() -> Result:
    from tests.judges.damaged import some_result

    return some_result()


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_of_ten_candidates_at_their_limit_none_passes_by_chance(held: Any, shared: float) -> None:
    """In 95 of 100 comparisons, where uncorrected some pass in up to 40; whatever they share."""
    random, runs, any_own, any_corrected = np.random.default_rng(0), 400, 0, 0
    for _ in range(runs):
        common = random.standard_normal(DOCUMENTS)
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * random.standard_normal(
            (10, DOCUMENTS)
        )
        found = held([Drawn(LIMIT + 0.02 * row) for row in noise])
        any_own += any(c.verdict == "PASS" for c in found.claims)
        any_corrected += any(c.corrected == "PASS" for c in found.claims)
    assert any_corrected <= runs * (0.05 + 2 * np.sqrt(0.05 * 0.95 / runs))
    expected = by_chance(10, 0.95).independent
    if shared:
        assert 0.2 * runs < any_own < expected * runs
    else:
        assert any_own == pytest.approx(runs * expected, abs=3 * np.sqrt(runs * 0.24))


def test_one_good_candidate_among_ten_still_passes(held: Any) -> None:
    """Four of its standard errors inside the limit, nine others at it: in most comparisons."""
    random, runs, passed = np.random.default_rng(1), 100, 0
    se = 0.02 / np.sqrt(DOCUMENTS)
    for _ in range(runs):
        noise = 0.02 * random.standard_normal((10, DOCUMENTS))
        noise[0] -= 4 * se
        found = held([Drawn(LIMIT + row) for row in noise])
        passed += found.claims[0].corrected == "PASS"
    assert passed > 0.8 * runs


def test_good_candidates_make_room_for_each_other(held: Any) -> None:
    """Once two of three passed at a third of α, the last is asked at all of it: Holm's step."""
    random = np.random.default_rng(2)
    noise = random.standard_normal((3, DOCUMENTS))
    noise = (noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, ddof=1, keepdims=True)
    far = [LIMIT - 0.02, LIMIT - 0.02, LIMIT - 1.95 * 0.02 / np.sqrt(DOCUMENTS)]
    drawn = [Drawn(m + 0.02 * row) for m, row in zip(far, noise, strict=True)]
    assert decide(stricter(GATE, 3), drawn[2]).verdict == "INCONCLUSIVE"  # type: ignore[arg-type]
    found = held(drawn)
    assert [c.corrected for c in found.claims] == ["PASS"] * 3
    assert [c.confidence for c in found.claims] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 3, 0.95])
    alone = held([drawn[2], Drawn(LIMIT + 0.02 * noise[0]), Drawn(LIMIT + 0.02 * noise[1])])
    assert alone.claims[0].corrected == "INCONCLUSIVE"
    assert alone.claims[0].verdict == "PASS"


@given(st.lists(st.sampled_from([0.0, 0.001, 0.004, 0.012, 0.02, 0.03, 0.05, 0.2]), min_size=1))
def test_the_rounds_are_holms_procedure(p_values: list[float]) -> None:
    """Against the textbook: in order of p, each at α over those left, until one is kept."""
    able = [i for i, p in enumerate(p_values) if p <= 0.05]
    tests = holm(len(p_values), able, lambda i, m: p_values[i] <= 0.05 / m)
    passed = {i for i in able if p_values[i] <= 0.05 / tests[i]}
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    expected: set[int] = set()
    for step, index in enumerate(order):
        if p_values[index] > 0.05 / (len(p_values) - step):
            break
        expected.add(index)
    assert passed == expected


def test_the_rate_is_that_of_independent_errors_and_bonferronis() -> None:
    """By hand: 1 − .95¹⁰ and 10 · .05; never above 1."""
    rate = by_chance(10, 0.95)
    assert rate.independent == pytest.approx(0.4012630607616213)
    assert rate.at_most == pytest.approx(0.5)
    assert by_chance(40, 0.95).at_most == 1.0


def test_the_corrected_verdicts_decide_where_that_is_asked(held: Any) -> None:
    """All pass by themselves, and one not among three: exit 0, or 3 where it counts."""
    random = np.random.default_rng(2)
    row = random.standard_normal(DOCUMENTS)
    row = (row - row.mean()) / row.std(ddof=1)
    near = Drawn(LIMIT - 1.95 * 0.02 / np.sqrt(DOCUMENTS) + 0.02 * row)
    found = held([near, near, near])
    assert [c.verdict for c in found.claims] == ["PASS"] * 3
    assert [c.corrected for c in found.claims] == ["INCONCLUSIVE"] * 3
    assert (found.exit_code, found.deciding) == (0, "own")
    assert "up to 14% of the time (independent errors; 15% at most)" in found.statement
    assert "with --family-wise they decide" in found.statement
    deciding = held([near, near, near], deciding=True)
    assert (deciding.exit_code, deciding.deciding) == (3, "corrected")
    assert deciding.claims[0].exit_code == 0
    lenient = policy(f"gates: [{{metric: nll.shift, max: {LIMIT}, on_inconclusive: warn}}]")
    assert held([near, near], lenient, True).exit_code == 0, "what the policy lets through"


def test_a_fail_stays_and_no_pass_becomes_one(held: Any) -> None:
    """Only PASS is corrected, and what is withdrawn was not shown to be bad."""
    bad, good = Drawn(np.linspace(0.5, 0.6, DOCUMENTS)), Drawn(np.linspace(-0.6, -0.5, DOCUMENTS))
    found = held([bad, good])
    assert [c.corrected for c in found.claims] == ["FAIL", "PASS"]
    assert [c.exit_code for c in found.claims] == [1, 0]
    assert found.exit_code == 1


def test_more_confidence_than_resampling_gives_is_no_pass(held: Any) -> None:
    """It is said; asked to decide, so many candidates are refused before anything is measured."""
    good = Drawn(np.linspace(-0.6, -0.5, DOCUMENTS), most=0.95)
    found = held([good] * 3)
    assert {c.corrected for c in found.claims} == {"INCONCLUSIVE"}
    assert "more than resampling can show" in found.claims[0].reason
    check_family(GATE, 100)
    with pytest.raises(InputError, match="--family-wise: with 101 candidates each is judged at"):
        check_family(GATE, 101)


def test_gates_on_the_value_alone_are_named() -> None:
    """They have no error rate that could be corrected."""
    rules = policy(
        "gates: [{metric: nll.shift, max: 0.1}, {metric: kl.mean, max: 0.1, decide: point}]"
    )
    assert family.statement(3, rules, False).endswith(
        "No such rate holds for gates that a value alone passes: kl.mean."
    )


def test_the_table_the_page_and_the_text_show_both_verdicts(held: Any, some: Result) -> None:
    """The corrected beside the own one, with what stands in its way."""
    random = np.random.default_rng(2)
    row = random.standard_normal(DOCUMENTS)
    row = (row - row.mean()) / row.std(ddof=1)
    near = Drawn(LIMIT - 1.95 * 0.02 / np.sqrt(DOCUMENTS) + 0.02 * row)
    found = held([near, Drawn(np.linspace(-0.6, -0.5, DOCUMENTS)), near])
    results = [
        some.model_copy(update={"candidate": c.candidate, "verdict": c.verdict})
        for c in found.claims
    ]
    text = combined_text(results, found)
    assert max(map(len, text.splitlines())) <= 100
    assert "corrected" in text
    assert text.count("? INCONCLUSIVE") == 2
    assert found.statement.split(".")[0] in " ".join(text.split())
    assert "c0: not at 97.5%. 1 of 1 gate is undecided: nll.shift." in " ".join(text.split())
    page = render_combined(results, found)
    assert "Corrected" in page
    assert "corrected for 3 candidates, at 97.5%" in page
