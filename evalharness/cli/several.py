"""``evalharness compare`` with several candidates: run them, print one table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalharness.cli.stdout import reader_may_leave
from evalharness.errors import InputError
from evalharness.progress import Progress


def run(
    base: Path,
    candidates: Sequence[Path],
    *,
    progress: Progress,
    dry_run: bool,
    output: Sequence[Path],
    as_json: bool,
    deliver: Any,
    show_plan: Any,
    **options: Any,
) -> int:
    """Compare every candidate; returns the exit code. ``deliver`` is told of each finished run."""
    from evalharness.report.combined import combined_text
    from evalharness.workflow.several import COMBINED, Outcome, compare_many, exit_code, plan_many

    for file in output:
        if file.suffix != ".html":
            raise InputError(
                "with several candidates only the table of all, .html, is written elsewhere",
                path=file,
                key="--output",
                remedy="The other files are in each candidate's run.",
            )
    folder, jobs = plan_many(base, candidates, **options)
    if dry_run:
        show_plan(jobs)
        return 0

    def told(outcome: Outcome) -> None:
        print(f"error: {outcome.job.candidate.name}: {outcome.error}", file=sys.stderr)

    outcomes = compare_many(folder, jobs, progress, told)
    results = [o.result for o in outcomes if o.result is not None]
    for outcome in outcomes:
        if outcome.result is not None:
            deliver(outcome.job.out, outcome.result, None)
    for file in output:
        if results:
            file.write_bytes((folder / COMBINED).read_bytes())
    with reader_may_leave():
        if as_json:
            print(json.dumps([r.model_dump(mode="json") for r in results], indent=1))
        elif results:
            print(combined_text(results), end="")
            print(f"\nreport: {folder / COMBINED}")
    return exit_code(outcomes)
