"""The public API: compare two models, load a run, check it against a policy.

import evalharness

run = evalharness.compare("base.yaml", "candidate.yaml", suite="quick")
print(run.result.verdict, run.metric("kl.mean").value)
assert evalharness.check(run, "gates/default.yaml").verdict == "PASS"
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from evalharness.run.environment import configure

configure()  # before anything below loads NumPy or torch

from evalharness.errors import InputError
from evalharness.gates import Decision, load_policy
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.results.files import load_result
from evalharness.results.judge import judge
from evalharness.run.directory import Run
from evalharness.run.finished import open_finished
from evalharness.spec.estimate import Estimate
from evalharness.spec.permissions import granted
from evalharness.spec.result import Anomaly, Result


class LoadedRun:
    """A finished run: its result, and any estimate its records can give."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @cached_property
    def result(self) -> Result:
        """``result.json``."""
        return load_result(self.path)

    @cached_property
    def estimates(self) -> Estimates:
        """Estimates computed from the records."""
        return Estimates(Evidence(self.run))

    @property
    def anomalies(self) -> list[Anomaly]:
        """What makes the run untrustworthy."""
        return list(self.result.anomalies)

    def metric(self, id: str, scope: dict[str, str] | None = None) -> Estimate:
        """One estimate with its two-sided 95% interval.

        Parameters
        ----------
        id : of a metric, such as ``kl.mean``.
        scope : where, such as ``{"corpus": "reviews"}``; default: over everything.

        Returns
        -------
        Estimate of value None, with a reason, where the run did not measure it.

        Raises
        ------
        InputError : no metric has this id.

        """
        if id not in REGISTRY:
            raise InputError(f"unknown metric {id!r}", remedy=f"Known: {', '.join(REGISTRY)}.")
        return self.estimates.estimate(id, scope or {}, 0.95)


def load_run(path: str | Path) -> LoadedRun:
    """Open the directory of a run.

    Raises
    ------
    InputError : it is no run or not a finished one, another process is writing it, or a file
        differs from the SHA-256 that its manifest gives.

    """
    return LoadedRun(open_finished(Path(path)))


def check(run: LoadedRun | str | Path, gates: str | Path) -> Decision:
    """Decide a policy on a run; no model is loaded and nothing is written.

    Parameters
    ----------
    run : an opened run, or its directory.
    gates : the name of a policy that ships, or a file.

    Returns
    -------
    Decision with the verdict, every gate's own, and the exit code.

    Raises
    ------
    InputError : the policy or the run cannot be read.

    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    return judge(loaded.run, load_policy(gates))[1]


def compare(
    base: str | Path,
    candidate: str | Path,
    *,
    suite: str | Path = "quick",
    gates: str | Path = "default",
    out: str | Path | None = None,
    device: str | None = None,
    limit: int | None = None,
    allow_code: bool = False,
) -> LoadedRun:
    """Compare two models and return the finished run, as the command of the same name does.

    Parameters
    ----------
    base, candidate : the files of the reference and of the candidate.
    suite, gates : names of what ships, or files.
    out : a new directory for the run; default: one under ``runs/``.
    device : overrides both files' ``model.device``.
    limit : documents per corpus and items per task, at most.
    allow_code : let the files run Python code: of a task, of a model, in pickled weights.

    Raises
    ------
    InputError : a file is wrong; nothing was written.
    RunError : the comparison could not finish; the message has the command that resumes it.
    Interrupted : by Ctrl-C or SIGTERM, with what was recorded kept.

    """
    from evalharness.workflow.compare import compare as run_compare
    from evalharness.workflow.plan import plan_job

    with granted(allow_code=allow_code):
        job = plan_job(
            base, candidate, suite=suite, gates=gates, out=out, device=device, limit=limit
        )
        return LoadedRun(run_compare(job)[1])
