"""One comparison, from four files to a sealed run directory.

plan      every input is read and checked; no weights are loaded, nothing is written
measure   both models, block by block; each block's records are on disk before the next
finish    records → estimates → gates → result.json, report.html, summary.md, junit.xml
"""

from __future__ import annotations

from evalharness.errors import InputError
from evalharness.progress import Progress
from evalharness.run.command import Command
from evalharness.run.directory import Run
from evalharness.spec.result import Result
from evalharness.workflow.interrupt import resumable
from evalharness.workflow.measure import measure_pair
from evalharness.workflow.plan import Job
from evalharness.workflow.reference import Reference
from evalharness.workflow.seal import finish


def compare(
    job: Job, progress: Progress | None = None, reference: Reference | None = None
) -> tuple[Result, Run]:
    """Measure and judge; returns the result and the run it was written to.

    ``reference`` is the job's own, where it is loaded already.
    """
    progress = progress or Progress()
    with resumable(job.out, job.resume_command):
        run = measure_pair(job, progress, reference)
    with resumable(job.out, job.resume_command), progress.step("writing the report"):
        try:
            result = finish(run, job.policy)
        except InputError as error:
            kept = f"What was measured is kept: `{Command.gate(run.path)}` decides it."
            raise InputError(
                error.message,
                path=error.path,
                line=error.line,
                key=error.key,
                remedy=f"{error.remedy or ''} {kept}".strip(),
            ) from None
        finally:
            run.close()
    return result, run
