"""``evalharness compare`` with several candidates: run them, print one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalharness.cli.options import Format
from evalharness.cli.output import deliver, said_if_unwritable
from evalharness.cli.stdout import complain, reader_may_leave
from evalharness.errors import InputError
from evalharness.progress import Progress
from evalharness.spec.visible_text import printable

if TYPE_CHECKING:
    from evalharness.workflow.plan import Job
    from evalharness.workflow.several import Outcome


def check_table_outputs(output: Sequence[Path] | None) -> None:
    """Raise `InputError` for a file that only one candidate's run could fill."""
    for file in output or []:
        if file.suffix != ".html":
            raise InputError(
                "with several candidates only the table of all, .html, is written elsewhere",
                path=file,
                key="--output",
                remedy="The other files are in each candidate's run.",
            )


def compare_all(
    folder: Path,
    jobs: Sequence[Job],
    progress: Progress,
    output: Sequence[Path] | None,
    format: Format,
) -> int:
    """Compare every candidate and print the table of all; returns the exit code."""
    from evalharness.report.combined import combined_text
    from evalharness.workflow.several import COMBINED, compare_many

    outcomes, combined = compare_many(folder, jobs, progress, _say_error)
    results = [o.result for o in outcomes if o.result is not None]
    for outcome in outcomes:
        if outcome.result is not None:
            deliver(outcome.job.out, outcome.result, None)
    for file in output or []:
        if results:
            with said_if_unwritable(file):
                file.write_bytes((folder / COMBINED).read_bytes())
    with reader_may_leave(needed=False):
        if format is Format.json:
            data = {"results": [r.model_dump(mode="json") for r in results]}
            print(json.dumps(combined.model_dump(mode="json") | data, indent=1))
        elif results:
            print(combined_text(results, combined), end="")
            print(f"\n{printable(f'report: {folder / COMBINED}')}")
    return combined.exit_code


def _say_error(outcome: Outcome) -> None:
    complain(f"error: {outcome.job.candidate.name}: {outcome.error}")
