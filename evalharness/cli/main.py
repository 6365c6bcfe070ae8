"""The command line: parse, call, print. Data goes to stdout; progress and errors to stderr."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalharness.cli import bisect, policies
from evalharness.cli.cache import cache_app
from evalharness.cli.options import (
    AllowCode,
    Confined,
    Device,
    Format,
    Gates,
    Limit,
    Offline,
    OtherGates,
    Out,
    OutputFormat,
    Outputs,
    Quiet,
    Resume,
    RunDir,
    Suite,
    Verbose,
    permit,
)
from evalharness.cli.output import (
    check_outputs,
    command_of,
    deliver,
    print_plan,
    show_result,
)
from evalharness.cli.read_only import writable
from evalharness.cli.several import check_table_outputs, compare_all
from evalharness.cli.stdout import complain, emit, open_missing_streams, say
from evalharness.errors import EvalHarnessError, InputError
from evalharness.progress import Progress
from evalharness.run.environment import configure
from evalharness.version import __version__

if TYPE_CHECKING:
    from evalharness.workflow.plan import Job

app = typer.Typer(
    name="evalharness",
    help="Measure how far a compressed language model is from its reference, and gate on it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        say(f"evalharness {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example: evalharness compare base.yaml candidate.yaml --suite quick --gates default"
)
def compare(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The reference's model file.")],
    candidates: Annotated[
        list[Path], typer.Argument(metavar="CANDIDATE", help="The candidate's, or several.")
    ],
    suite: Suite = "quick",
    gates: Gates = "default",
    out: Out = None,
    resume: Resume = None,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            show_default=False,
            help="Keep the reference's hidden states for other candidates, and use those kept "
            "(default: with several candidates).",
        ),
    ] = None,
    device: Device = None,
    limit: Limit = None,
    offline: Offline = False,
    allow_code: AllowCode = False,
    confined: Confined = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every input; load no weights, write nothing.")
    ] = False,
    plan_from: Annotated[
        Path | None,
        typer.Option(
            "--plan-from", metavar="RUN", help="Check sizes by the spreads of this earlier run."
        ),
    ] = None,
    stop_early: Annotated[
        bool,
        typer.Option(
            "--stop-early",
            help="Stop as soon as every blocking gate is decided (confidence sequences).",
        ),
    ] = False,
    looks: Annotated[
        int | None,
        typer.Option(
            "--looks",
            metavar="N",
            show_default=False,
            help="Look N times, equally spaced, and stop at the first look that decides "
            "every blocking gate (O'Brien-Fleming; 5 is customary).",
        ),
    ] = None,
    family_wise: Annotated[
        bool,
        typer.Option(
            "--family-wise",
            help="With several candidates, let the verdicts corrected for their number decide "
            "the exit code: for choosing one of them to ship.",
        ),
    ] = False,
    output: Outputs = None,
    format: OutputFormat = Format.text,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare a candidate with its reference, judge it, and write a report.

    Several candidates share one loaded reference; --out is then the directory of their runs.
    """
    configure(offline=offline)
    permit(context, allow_code=allow_code, confined=confined)
    check_outputs(output)
    options: dict[str, Any] = {
        "suite": suite,
        "gates": gates,
        "out": out,
        "resume": resume,
        "device": device,
        "limit": limit,
        "stop_early": stop_early,
        "looks": looks,
        "plan_from": plan_from,
        "command": command_of(context),
    }
    progress = Progress(quiet=quiet, verbose=verbose)
    if len(candidates) > 1:
        from evalharness.workflow.several import plan_many

        check_table_outputs(output)
        folder, jobs = plan_many(base, candidates, cache=cache, family_wise=family_wise, **options)
        if not dry_run:
            raise typer.Exit(compare_all(folder, jobs, progress, output, format))
    else:
        from evalharness.workflow.plan import plan_job

        jobs = [plan_job(base, candidates[0], cache=bool(cache), **options)]
        if not dry_run:
            _compare(jobs[0], progress, output, format)
    print_plan(jobs)


def _compare(job: Job, progress: Progress, output: list[Path] | None, format: Format) -> None:
    """Compare, show and deliver; exits as the verdict says."""
    from evalharness.workflow.compare import compare

    result, run = compare(job, progress)
    deliver(run.path, result, output)
    show_result(result, run.path, format)
    raise typer.Exit(result.exit_code)


@app.command(epilog="Example: evalharness demo --out runs/demo")
def demo(
    context: typer.Context,
    candidate: Annotated[
        Path | None, typer.Option("--candidate", help="Another candidate of the same reference.")
    ] = None,
    suite: Suite = "demo",
    gates: Gates = "demo",
    out: Out = None,
    resume: Resume = None,
    limit: Limit = None,
    output: Outputs = None,
    allow_code: AllowCode = False,
    confined: Confined = False,
    format: OutputFormat = Format.text,
    quiet: Quiet = False,
) -> None:
    """Compare SmolLM2-135M with its 4-bit version, on text and questions that need no network."""
    configure(offline=True)
    permit(context, allow_code=allow_code, confined=confined)
    check_outputs(output)
    from evalharness.run import assets
    from evalharness.workflow.plan import plan_job

    files = assets.folder("suites") / "demo"
    job = plan_job(
        files / "base.yaml",
        candidate or files / "candidate.yaml",
        suite=suite,
        gates=gates,
        out=out,
        resume=resume,
        limit=limit,
        command=command_of(context),
    )
    _compare(job, Progress(quiet=quiet), output, format)


@app.command(epilog="Example: evalharness gate runs/a--b-20260101-120000 --gates gates/strict.yaml")
def gate(
    context: typer.Context,
    run: RunDir,
    gates: OtherGates = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Replace the run's policy, result and report by these."),
    ] = False,
    output: Outputs = None,
    confined: Confined = False,
    format: OutputFormat = Format.text,
) -> None:
    """Decide a finished run again from its records, without a model; the run stays as it is."""
    permit(context, confined=confined)
    check_outputs(output)
    from evalharness.gates import load_policy
    from evalharness.results.judge import policy_of
    from evalharness.run import assets
    from evalharness.run.finished import rewriting
    from evalharness.workflow.seal import finish

    with writable(run, write=write) as (place, itself):
        with rewriting(place, judged=gates is None) as opened:
            policy = load_policy(assets.find("gates", gates)) if gates else policy_of(opened)
            result = finish(opened, policy, run)
        deliver(place, result, output)
    show_result(result, run if itself else None, format)
    raise typer.Exit(result.exit_code)


@app.command(epilog="Example: evalharness report runs/a--b-20260101-120000")
def report(run: RunDir) -> None:
    """Write report.html, summary.md and junit.xml again from result.json.

    Where RUN may only be read, its result is printed, with the verdict's exit code.
    """
    from evalharness.results.files import load_result
    from evalharness.run.finished import rewriting
    from evalharness.workflow.seal import render

    with writable(run) as (place, itself), rewriting(place) as opened:
        result = load_result(place)
        render(opened, result)
        opened.seal()
    if not itself:
        show_result(result, None, Format.text)
        raise typer.Exit(result.exit_code)
    say(run / "report.html")


@app.command(epilog="Example: evalharness show runs/a--b-20260101-120000 --format json")
def show(run: RunDir, format: OutputFormat = Format.text) -> None:
    """Print a finished run's result."""
    from evalharness.results.files import load_result
    from evalharness.run.finished import open_finished

    open_finished(run)
    show_result(load_result(run), run, format)


@app.command(epilog="Example: evalharness schema policy > policy.schema.json")
def schema(
    kind: Annotated[str, typer.Argument(help="spec, suite, policy, result or combined.")],
) -> None:
    """Print the JSON Schema of a file."""
    from evalharness.spec.schemas import schema_text

    emit(schema_text(kind).removesuffix("\n"))


policies.register(app)
bisect.register(app)
app.add_typer(cache_app, name="cache")


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    configure()
    # NumPy's OpenBLAS takes memory for every core as it is loaded, and where it gets none it ends
    # the process itself, with exit 1. Ours are small products; torch has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Importing allocates much and drops nothing: at Python's own threshold, looking for cycles
    # meanwhile is a tenth of what `gate` takes.
    gc.set_threshold(50_000, 20, 20)
    open_missing_streams()
    try:
        app()
    except SystemExit:
        if {"-h", "--help"} & set(sys.argv):  # nobody read it to its end
            raise SystemExit(0) from None
        raise
    except EvalHarnessError as error:
        complain(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        complain("interrupted")
        raise SystemExit(130) from None
    except Exception as error:
        # Python would exit with 1, which here means that a gate failed.
        raise SystemExit(_unexpected(error)) from None


# What the name of a file, or the place that it was given, brings about.
_NAMED_WRONG = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.EDQUOT)


def _unexpected(error: Exception) -> int:
    """Say what happened and return the exit code; a refusal or want of memory has no traceback."""
    if isinstance(error, MemoryError):
        with suppress(MemoryError):
            complain("error: out of memory. What was recorded is kept.")
        return EvalHarnessError.exit_code
    known = isinstance(error, OSError) and error.errno in (*_NAMED_WRONG, *_NOT_WRITABLE)
    if isinstance(error, OSError) and known:
        name = "" if error.filename is None else f"{str(error.filename)[:200]}: "
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        remedy = " Give a place, or a copy of the run, that you may write in." if denied else ""
        complain(f"error: {name}{error.strerror}. What was recorded is kept.{remedy}")
        return InputError.exit_code if error.errno in _NAMED_WRONG else EvalHarnessError.exit_code
    for part in traceback.format_exception(error):
        for line in part.rstrip().split("\n"):
            complain(f"| {line}")
    complain(f"error: unexpected {type(error).__name__}; what was recorded is kept")
    return EvalHarnessError.exit_code
