"""The command line: parse, call, print. Data goes to stdout; progress and errors to stderr."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from evalharness.cli import bisect as cli_bisect
from evalharness.cli import cache as cli_cache
from evalharness.cli import policies as cli_gates
from evalharness.errors import EvalHarnessError, InputError
from evalharness.run.environment import configure
from evalharness.version import __version__

app = typer.Typer(
    name="evalharness",
    help="Measure how far a compressed language model is from its reference, and gate on it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How a result is printed."""

    text = "text"
    json = "json"


RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Suite = Annotated[str, typer.Option("--suite", help="A suite file, or quick, demo, standard.")]
Gates = Annotated[str, typer.Option("--gates", help="A policy file, or a shipped one's name.")]
Out = Annotated[Path | None, typer.Option("--out", help="The run directory, new or empty.")]
Resume = Annotated[Path | None, typer.Option("--resume", help="Go on with this unfinished run.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, … for both.")]
Limit = Annotated[int | None, typer.Option("--limit", help="At most N documents and items each.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never reach for the network.")]
Outputs = Annotated[
    list[Path] | None,
    typer.Option("-o", "--output", help="Also write FILE, as its suffix says: html json md xml."),
]
OutputFormat = Annotated[Format, typer.Option("--format", help="What stdout gets.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="The memory plan, and why.")]


def _version(value: bool) -> None:
    if value:
        print(f"evalharness {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example: evalharness compare base.yaml candidate.yaml --suite quick --gates default"
)
def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The reference's model file.")],
    candidates: Annotated[
        list[Path], typer.Argument(metavar="CANDIDATE", help="The candidate's; or several.")
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every input; load no weights, write nothing.")
    ] = False,
    plan_from: Annotated[
        Path | None,
        typer.Option("--plan-from", help="Check sizes by the spreads of this earlier run."),
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
            show_default=False,
            help="Look so many times, equally spaced, and stop at the first look that decides "
            "every blocking gate (O'Brien-Fleming; 5 is customary).",
        ),
    ] = None,
    output: Outputs = None,
    format: OutputFormat = Format.text,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare a candidate with its reference, judge it, and write a report.

    Several candidates share one loaded reference; --out is then the directory of their runs.
    """
    configure(offline=offline)
    _check_outputs(output)
    progress = _progress(quiet, verbose)
    if len(candidates) > 1:
        from evalharness.cli import several as cli_many

        code = cli_many.run(
            base,
            candidates,
            progress=progress,
            dry_run=dry_run,
            output=output or [],
            as_json=format is Format.json,
            deliver=_deliver,
            show_plan=_print_plan,
            suite=suite,
            gates=gates,
            out=out,
            resume=resume,
            cache=cache,
            device=device,
            limit=limit,
            stop_early=stop_early,
            looks=looks,
            plan_from=plan_from,
            command=_command(),
        )
        raise typer.Exit(code)
    from evalharness.workflow.compare import compare as run_compare
    from evalharness.workflow.plan import plan_job

    job = plan_job(
        base,
        candidates[0],
        suite=suite,
        gates=gates,
        out=out,
        resume=resume,
        device=device,
        limit=limit,
        stop_early=stop_early,
        looks=looks,
        cache=bool(cache),
        plan_from=plan_from,
        command=_command(),
    )
    if dry_run:
        _print_plan([job])
        return
    result, run = run_compare(job, progress)
    _deliver(run.path, result, output)
    _show(result, run.path, format)
    raise typer.Exit(result.exit_code)


@app.command(epilog="Example: evalharness demo --out runs/demo")
def demo(
    candidate: Annotated[
        Path | None, typer.Option("--candidate", help="Another candidate of the same reference.")
    ] = None,
    suite: Suite = "demo",
    gates: Gates = "demo",
    out: Out = None,
    resume: Resume = None,
    limit: Limit = None,
    output: Outputs = None,
    format: OutputFormat = Format.text,
    quiet: Quiet = False,
) -> None:
    """Compare SmolLM2-135M with its 4-bit version, on text and questions that need no network."""
    configure(offline=True)
    _check_outputs(output)
    from evalharness.run import assets
    from evalharness.workflow.compare import compare as run_compare
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
        command=_command(),
    )
    result, run = run_compare(job, _progress(quiet))
    _deliver(run.path, result, output)
    _show(result, run.path, format)
    raise typer.Exit(result.exit_code)


@app.command(epilog="Example: evalharness gate runs/a--b-20260101-120000 --gates gates/strict.yaml")
def gate(
    run: RunDir,
    gates: Annotated[
        Path | None, typer.Option("--gates", help="Another policy; default: the run's own.")
    ] = None,
    output: Outputs = None,
    format: OutputFormat = Format.text,
) -> None:
    """Decide a finished run again from its records, without a model."""
    _check_outputs(output)
    from evalharness.gates import load_policy
    from evalharness.results.judge import policy_of
    from evalharness.run import assets
    from evalharness.run.directory import Run
    from evalharness.workflow.seal import finish

    opened = Run.open(run)
    opened.verify()
    policy = load_policy(assets.find("gates", gates)) if gates else policy_of(opened)
    result = finish(opened, policy)
    _deliver(run, result, output)
    _show(result, run, format)
    raise typer.Exit(result.exit_code)


@app.command(epilog="Example: evalharness report runs/a--b-20260101-120000")
def report(run: RunDir) -> None:
    """Write report.html, summary.md and junit.xml again from result.json."""
    from evalharness.results.files import load_result
    from evalharness.run.directory import Run
    from evalharness.workflow.seal import render

    opened = Run.open(run)
    opened.verify(("result.json",))
    render(opened, load_result(run))
    opened.seal()
    print(run / "report.html")


@app.command(epilog="Example: evalharness show runs/a--b-20260101-120000 --format json")
def show(run: RunDir, format: OutputFormat = Format.text) -> None:
    """Print a finished run's result."""
    from evalharness.results.files import load_result
    from evalharness.run.directory import Run

    Run.open(run).verify(("result.json",))
    _show(load_result(run), run, format)


@app.command(epilog="Example: evalharness schema policy > policy.schema.json")
def schema(
    kind: Annotated[str, typer.Argument(help="spec, suite, policy or result.")],
) -> None:
    """Print the JSON Schema of a file."""
    from evalharness.spec.schemas import schema_text

    print(schema_text(kind), end="")


cli_gates.register(app)
cli_bisect.register(app)
app.add_typer(cli_cache.cache, name="cache")


def _print_plan(jobs: Any) -> None:
    from evalharness.cli.dry_run import describe
    from evalharness.cli.stdout import PipeConsole, reader_may_leave

    parts = describe(jobs)
    with reader_may_leave():
        console = PipeConsole(width=100, highlight=False)
        for part in parts:
            console.print(part, markup=False, soft_wrap=isinstance(part, str))


def _command() -> str:
    return shlex.join(["evalharness", *sys.argv[1:]])


def _progress(quiet: bool, verbose: bool = False) -> Any:
    from evalharness.progress import Progress

    return Progress(quiet=quiet, verbose=verbose)


_BY_SUFFIX = {
    ".html": "report.html",
    ".json": "result.json",
    ".md": "summary.md",
    ".xml": "junit.xml",
}


def _check_outputs(output: list[Path] | None) -> None:
    for file in output or []:
        if file.suffix not in _BY_SUFFIX or not file.resolve().parent.is_dir():
            raise InputError(
                "must end in .html, .json, .md or .xml, in a directory that exists",
                path=file,
                key="--output",
                remedy="The suffix says what is written.",
            )


def _deliver(run: Path, result: Any, output: list[Path] | None) -> None:
    """Copy what was asked for, and tell GitHub where it runs us."""
    for file in output or []:
        shutil.copyfile(run / _BY_SUFFIX[file.suffix], file)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as step:
            step.write((run / "summary.md").read_text(encoding="utf-8") + "\n")
    if os.environ.get("GITHUB_ACTIONS"):
        from evalharness.report import github_annotations

        # GitHub reads both streams; stdout carries the result alone.
        print(*github_annotations(result), sep="\n", file=sys.stderr)


def _show(result: Any, path: Path, format: Format) -> None:
    from evalharness.cli.stdout import PipeConsole, reader_may_leave

    with reader_may_leave():
        if format is Format.json:
            print(result.model_dump_json(indent=1))
            return
        from evalharness.report import print_summary

        console = PipeConsole(soft_wrap=False)
        print_summary(result, console)
        console.print(f"\nreport: {path / 'report.html'}", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    configure()
    # Importing allocates much and drops nothing: at Python's own threshold, looking for cycles
    # meanwhile is a tenth of what `gate` takes.
    gc.set_threshold(50_000, 20, 20)
    try:
        app()
    except EvalHarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:
        # Python would exit with 1, which here means that a gate failed.
        traceback.print_exc()
        print(
            f"error: unexpected {type(error).__name__}; what was recorded is kept", file=sys.stderr
        )
        raise SystemExit(4) from None
