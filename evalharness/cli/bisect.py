"""The command that looks for a repair."""

from __future__ import annotations

from typing import Annotated

import typer

from evalharness.cli.options import (
    AllowCode,
    Confined,
    Device,
    Format,
    Offline,
    OtherGates,
    OutputFormat,
    Quiet,
    RunDir,
    permit,
)
from evalharness.cli.output import command_of
from evalharness.cli.read_only import writable
from evalharness.cli.stdout import emit, say
from evalharness.errors import InputError
from evalharness.run.environment import configure


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("bisect", epilog="Example: evalharness bisect runs/a--b-20260101-120000")(repair)


def repair(
    context: typer.Context,
    run: RunDir,
    gates: OtherGates = None,
    evaluations: Annotated[
        int | None, typer.Option("--evaluations", metavar="N", help="Try at most N sets in all.")
    ] = None,
    replay: Annotated[
        int | None,
        typer.Option("--replay", metavar="N", help="Only repeat evaluation N of bisect.jsonl."),
    ] = None,
    device: Device = None,
    offline: Offline = False,
    allow_code: AllowCode = False,
    confined: Confined = False,
    format: OutputFormat = Format.text,
    quiet: Quiet = False,
) -> None:
    """Find the smallest set of modules to keep in high precision so that the policy passes.

    Exit code: 0 the repair passes on held-out documents, 1 it fails or there is none, 3 the
    held-out documents do not settle it, 2 there is nothing to repair. The same command resumes a
    search that was interrupted or killed. With --replay: 0 the evaluation comes out as it was
    logged, 1 it does not.
    """
    configure(offline=offline)
    permit(context, allow_code=allow_code, confined=confined)
    if evaluations is not None and evaluations < 3:
        raise InputError(f"must be at least 3 (got {evaluations})", key="--evaluations")
    from evalharness.bisect.run import bisect
    from evalharness.bisect.run import replay as replayed
    from evalharness.gates import load_policy
    from evalharness.progress import Progress
    from evalharness.report.bisect_text import repair_lines, replay_lines, sensitivity_lines
    from evalharness.results.files import load_result
    from evalharness.run import assets

    policy = load_policy(assets.find("gates", gates)) if gates else None
    progress = Progress(quiet=quiet)
    if replay is not None:
        with writable(run) as (place, _):
            row, again = replayed(place, replay, policy=policy, device=device, progress=progress)
        lines, same = replay_lines(replay, row, again.decision.gates, again.decision.verdict)
        say(*lines)
        raise typer.Exit(0 if same else 1)
    with writable(run, records=True) as (place, _):
        found = bisect(
            place,
            policy=policy,
            device=device,
            evaluations=evaluations,
            progress=progress,
            command=command_of(context),
        )
        ranked = load_result(place).sensitivity
    if format is Format.json:
        emit(found.model_dump_json(indent=1))
    else:
        say(*sensitivity_lines(ranked), "", *repair_lines(found))
        if found.file:
            say("", f"repair: {place / found.file}")
    raise typer.Exit({"PASS": 0, "FAIL": 1, None: 1}.get(found.verdict_after, 3))
