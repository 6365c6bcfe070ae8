"""Many candidates of one reference: each keeps its verdict, and what differs is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.cells import cell_len

from evalharness.report import combined_text, render_combined
from evalharness.report.combined import differences, worst_task
from evalharness.spec.combined import Claim, Combined
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Result

from .page import check_harmless


@pytest.fixture(scope="module")
def results(result: Callable[..., Result]) -> list[Result]:
    """Four candidates, one of each verdict."""
    verdicts = ("PASS", "INCONCLUSIVE", "FAIL", "ANOMALOUS")
    found = [result(v) for v in verdicts]
    # A name is the manifest's: runs of one candidate under four damages would share theirs.
    return [r.model_copy(update={"candidate": f"candidate-{r.verdict.lower()}"}) for r in found]


def test_the_page_lists_every_candidate_with_its_own_verdict(results: list[Result]) -> None:
    """In the order given, with size, damage, gates and headline."""
    page = check_harmless(render_combined(results))
    places = [page.text.index(r.candidate) for r in results]
    assert places == sorted(places)
    for r in results:
        assert r.headline in page.text
    assert "4 candidates against smol-7b-instruct" in page.text
    assert "not in its policy" not in page.text


def test_the_same_results_give_the_same_bytes(results: list[Result]) -> None:
    """And the charts keep ids of their own."""
    assert render_combined(results) == render_combined(results)


def test_hostile_names_are_harmless(
    hostile: Callable[..., Result], any_text: Callable[..., Result]
) -> None:
    """The combined page escapes as the single one does."""
    check_harmless(render_combined([hostile(), any_text("x")]))


def test_the_text_table_fits_100_columns(
    results: list[Result], any_text: Callable[..., Result]
) -> None:
    """With names of any length."""
    text = combined_text([*results, any_text("漢" * 80)])
    assert max(cell_len(line) for line in text.splitlines()) <= 100
    assert "✕ FAIL" in text
    assert "[1.066, 1.096]" in text


def test_runs_that_do_not_share_a_reference_or_a_suite_say_so(results: list[Result]) -> None:
    """Two numbers from different texts are not compared in silence."""
    assert differences(results) == []
    other = results[0].model_copy(update={"suite": "other"})
    assert differences([results[0], other]) == ["the suite: 2 different ones among 2 runs"]
    assert "the runs do not share the suite" in render_combined([results[0], other])


def test_the_worst_task_is_worst_by_its_own_direction(
    result: Callable[..., Result], bare: Result
) -> None:
    """A word error rate that rose is worse than an accuracy that fell less."""

    def shift(task: str, value: float, direction: str) -> Estimate:
        scope = {"task": task, "metric": "m"}
        return Estimate(id="task.score.shift", scope=scope, value=value, direction=direction)  # type: ignore[arg-type]

    rows = [shift("acc", -0.01, "higher"), shift("wer", 0.2, "lower"), shift("up", 0.3, "higher")]
    worst = worst_task(result("PASS").model_copy(update={"metrics": rows}))
    assert worst is not None
    assert worst.scope["task"] == "wer"
    assert worst_task(bare) is None


def test_no_result_is_an_error() -> None:
    """An empty page would look like a clean sweep."""
    with pytest.raises(ValueError, match="must hold at least one result"):
        render_combined([])


def test_a_rule_has_one_row_whatever_its_worst_scope_is(results: list[Result]) -> None:
    """The worst layer of one candidate is not that of another, and both are held to one gate."""
    one, other = results[:2]
    moved = [
        g.model_copy(update={"scope": {"layer": "model.layers.9"}}) if "layer" in g.scope else g
        for g in other.gates
    ]
    html = render_combined([one, other.model_copy(update={"gates": moved})])
    matrix = html[html.index('id="gates"') : html.index('id="headlines"')]
    assert matrix.count('<th scope="row">') == len({g.rule or g.id for g in one.gates})
    assert "not in its policy" not in matrix


def test_every_candidate_links_to_its_own_report(results: list[Result]) -> None:
    """By its directory beside the page, whatever that is called."""
    shared = {"corrected_exit_code": 0, "confidence": None, "reason": "", "exit_code": 0}
    claims = [
        Claim(candidate=r.candidate, run=run, verdict=r.verdict, corrected=r.verdict, **shared)
        for r, run in zip(results, ("a", "b c", "javascript:x", "d"), strict=True)
    ]
    numbers = {"confidence": 0.95, "by_chance": 0.2, "at_most": 0.2, "exit_code": 0}
    combined = Combined(candidates=4, statement="", claims=claims, **numbers)
    page = check_harmless(render_combined(results, combined))
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links == [
        "./a/report.html",
        "./b%20c/report.html",
        "./javascript%3Ax/report.html",
        "./d/report.html",
    ]
