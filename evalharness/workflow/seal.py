"""How a run ends: it is judged, its files are written, and it is sealed."""

from __future__ import annotations

from pathlib import Path

from evalharness.gates.resolved_policy import BASELINE, resolved_text
from evalharness.report import render_html, render_junit, render_markdown
from evalharness.results.assemble import build, decided_again
from evalharness.results.files import load_result
from evalharness.results.judge import judge
from evalharness.run.directory import Run
from evalharness.run.finished import is_judged
from evalharness.spec.policy import Policy
from evalharness.spec.result import Result
from evalharness.version import __version__


def finish(run: Run, policy: Policy, place: Path | None = None) -> Result:
    """Judge, write result.json, report.html, summary.md and junit.xml, and seal the run.

    ``place`` is the run that the reports name, where this is a copy of it.
    """
    estimates, decision, found = judge(run, policy)
    before = load_result(run.path) if is_judged(run.manifest) else None
    if before is not None and before.evalharness_version == __version__:
        result = decided_again(run, before, decision, found)
    else:
        result = build(run, estimates, decision, found)
    pages = _rendered(result, place or run.path)
    # From here on the run is not whole until it is sealed, so nothing slow comes between.
    run.update(
        policy=str(policy.path.resolve()),
        policy_sources=[str(path.resolve()) for path in policy.sources],
    )
    run.write_text("policy.yaml", resolved_text(policy))
    if policy.baseline is not None:
        run.write_text(BASELINE, policy.baseline.read_text(encoding="utf-8"))
    run.write_text("result.json", result.model_dump_json(indent=1) + "\n")
    for name, text in pages.items():
        run.write_text(name, text)
    run.seal()
    return result


def render(run: Run, result: Result) -> None:
    """Write everything a person or a CI reads."""
    for name, text in _rendered(result, run.path).items():
        run.write_text(name, text)


def _rendered(result: Result, run: Path) -> dict[str, str]:
    return {
        "report.html": render_html(result, run),
        "summary.md": render_markdown(result, run),
        "junit.xml": render_junit(result),
    }
