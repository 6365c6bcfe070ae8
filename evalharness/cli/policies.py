"""Commands about policies: explain a verdict, plan sizes, propose a policy, keep baselines."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalharness.cli.options import AllowCode, Confined, RunDir, permit
from evalharness.cli.stdout import say, show
from evalharness.errors import InputError, Interrupted, RunError, nearest
from evalharness.spec.visible_text import printable

if TYPE_CHECKING:
    from evalharness.api import LoadedRun
    from evalharness.gates import Need
    from evalharness.metrics import Estimates

baseline_app = typer.Typer(
    name="baseline", help="Stored estimates that gates may be relative to.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: evalharness explain kl.mean runs/a--b-20260101-120000")(explain)
    app.command(epilog="Example: evalharness plan gates/ship.yaml --run runs/a--b-20260101-120000")(
        plan
    )
    app.command(epilog="Example: evalharness init base.yaml candidate.yaml > gates/ship.yaml")(init)
    app.add_typer(baseline_app)


def explain(
    gate: Annotated[str, typer.Argument(metavar="GATE", help="The gate's id.")], run: RunDir
) -> None:
    """Say in words why a gate has its verdict."""
    from evalharness.gates import explain as in_words
    from evalharness.results.files import load_result
    from evalharness.results.judge import policy_of
    from evalharness.run.finished import open_finished

    opened = open_finished(run)
    result = load_result(run)
    found = [g for g in result.gates if gate in (g.id, g.rule)]
    if not found:
        known = list(dict.fromkeys(g.rule or g.id for g in result.gates))
        hint = nearest(gate, known)
        raise InputError(
            f"no gate {gate!r} in this run",
            path=run,
            remedy=(hint[:1].upper() + hint[1:]) or f"It has: {', '.join(known)}.",
        )
    policy = policy_of(opened)
    say("\n\n".join(in_words(g, policy) for g in found))


def plan(
    context: typer.Context,
    gates: Annotated[str, typer.Argument(metavar="GATES", help="A policy file or a name.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Take the spreads from this earlier run."),
    ] = None,
    confined: Confined = False,
) -> None:
    """Say how many documents and items each gate of a policy needs."""
    permit(context, confined=confined)
    from rich.table import Table

    from evalharness.gates import fewest, load_policy, spreads_from
    from evalharness.gates import needs as needs_of
    from evalharness.gates.limits import has_own_fewest
    from evalharness.gates.sizes import unit_of
    from evalharness.metrics import REGISTRY
    from evalharness.run import assets

    policy = load_policy(assets.find("gates", gates))
    spreads, lines = None, []
    if run is not None:
        from evalharness.api import load_run

        estimates = load_run(run).estimates
        spreads = spreads_from(policy, estimates, str(run))
        lines = other_cuts(estimates, [gate.metric for gate in policy.gates])
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("gate", "needs at least", "for 80% power", "unit", "spread", "from", "min_n"):
        table.add_column(name, justify="right" if "needs" in name or "power" in name else "left")
    found: dict[str, list[Need]] = {}
    for need in needs_of(policy, spreads):
        found.setdefault(need.gate, []).append(need)
    for gate in policy.gates:
        info = REGISTRY[gate.metric]
        unit = "counted" if info.deterministic else unit_of(gate, info)
        whose = "metric" if has_own_fewest(gate) else "policy"
        least = "" if info.deterministic else f"{fewest(gate)} ({whose})"
        unknown = ("", "", unit, "", "") if least == "" else (f"{fewest(gate)}", "?", unit, "", "")
        for cells in [need_cells(need) for need in found.get(gate.id, ())] or [unknown]:
            table.add_row(*map(printable, (gate.id, *cells, least)))
    show(table)
    for line in lines:
        say(line)


def other_cuts(estimates: Estimates, metrics: list[str]) -> list[str]:
    """What the same tokens would show as more and shorter documents, a line a cut."""
    from evalharness.metrics.shorter import shorter

    lines = []
    for cut in shorter(estimates, metrics):
        errors = ", ".join(f"{metric} × {share:.2f}" for metric, share in cut.errors.items())
        lines.append(
            f"the same tokens from {cut.documents:.1f} × as many documents, cut after {cut.tokens} "
            f"tokens: standard error of {errors}"
        )
    return ["", *lines] if lines else []


def need_cells(need: Need) -> tuple[str, ...]:
    """What one gate needs, as cells of the table."""
    to_pass = "never" if need.to_pass is None else f"{need.to_pass:,}"
    spread = need.spread
    return (f"{need.to_decide:,}", to_pass, need.unit, f"{spread.sd:.3g}", spread.source)


_ROOM = 1.25  # how far beyond the measured bound `init` proposes a limit


def init(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="RUN | BASE CANDIDATE", help="A run, or a pair.")
    ],
    suite: Annotated[str, typer.Option("--suite", help="For a pair: what to measure.")] = "quick",
    allow_code: AllowCode = False,
    confined: Confined = False,
) -> None:
    """Propose a policy for a pair you would ship: its bounds with room, beyond the noise floor."""
    permit(context, allow_code=allow_code, confined=confined)
    from evalharness.api import load_run
    from evalharness.gates import resolved
    from evalharness.gates.scopes import chosen
    from evalharness.metrics import REGISTRY
    from evalharness.metrics.families import TASK

    if len(files) > 2:
        raise InputError("takes a run, or a base and a candidate", key="init")
    if len(files) == 1:
        loaded = load_run(files[0])
    else:
        loaded = _measured(files[0], files[1], suite)
    run, estimates = loaded.path, loaded.estimates
    from evalharness.run import assets

    say(assets.schema_line("policy"))
    say(f"# Proposed from {run}: each limit is the run's own bound with a quarter's room,")
    say("# outside the noise floor, and such that as many documents and items can decide it.")
    say("# Tighten what matters to you.\nversion: 1\nconfidence: 0.95\ngates:")
    proposed = [
        (metric, scope)
        for metric in REGISTRY.shown("proposal")
        for scope in chosen(estimates, metric.id, {})
        if not scope or metric.family is TASK
    ]
    for metric, scope in proposed:
        id, found = metric.id, estimates.estimate(metric.id, scope, 0.90)
        lower = metric.direction == "lower"
        bound = found.high if lower else found.low
        best = metric.identity if metric.identity is not None else 0.0
        unknown = estimates.noise_unknown(id, scope)
        if bound is None or unknown is not None:
            say(f"  # {id}: {found.reason or f'its noise floor was not measured ({unknown})'}")
            continue
        margin = _ROOM * abs(bound - best) if (bound > best) == lower else 0.0
        if found.noise_floor is not None:
            margin = max(margin, 3 * abs(found.noise_floor - best))
        margin = max(margin, resolved(id, found.clusters, 0.95))
        limit = _round_away(best + margin if lower else best - margin, lower)
        say(f"  - metric: {id}")
        if scope:
            say(f"    scope: {json.dumps(scope, ensure_ascii=False)}")  # JSON is YAML, quoted
        say(f"    {'max' if lower else 'min'}: {limit:.6g}")


def _measured(base: Path, candidate: Path, suite: str) -> LoadedRun:
    """Compare under a policy that refuses no pair: what is proposed depends on none."""
    from evalharness.api import compare

    folder = Path(tempfile.mkdtemp())
    policy = folder / "init.yaml"
    policy.write_text(
        "on_incomplete: warn\ngates:\n"
        "  - {metric: weights.bits_per_weight, max: 1.0e+6, severity: info}\n"
    )
    try:
        run = compare(base, candidate, suite=suite, gates=policy)
    except (RunError, Interrupted):
        raise  # the command that resumes names the policy
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    return run


def _round_away(value: float, up: bool) -> float:
    """Two significant digits of the distance to the nearest whole number, away from it."""
    whole = round(value)
    rest = value - whole
    if rest == 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(rest))) - 1)
    steps = math.ceil(rest / unit) if up else math.floor(rest / unit)
    return float(whole + steps * unit)


@baseline_app.command(epilog="Example: evalharness baseline save runs/x --to gates/baseline.json")
def save(
    run: RunDir,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write.")],
) -> None:
    """Store a run's estimates as a baseline; refuses to replace one (see bless)."""
    if to.exists():
        raise InputError(
            "a baseline is already there",
            path=to,
            key="--to",
            remedy="`evalharness baseline bless` replaces it.",
        )
    _save(run, to)


@baseline_app.command(epilog="Example: evalharness baseline bless runs/x --to gates/baseline.json")
def bless(
    run: RunDir,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to replace.")],
) -> None:
    """Replace a baseline by a run that its policy passed."""
    from evalharness.api import load_run

    verdict = load_run(run).result.verdict
    if verdict != "PASS":
        raise InputError(
            f"the run's verdict is {verdict}, and a baseline must be a PASS",
            path=run,
            remedy="Decide it under the policy it should meet: `gate RUN --gates F --write`.",
        )
    _save(run, to)


@baseline_app.command("show", epilog="Example: evalharness baseline show gates/baseline.json")
def show_baseline(file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Print a baseline's estimates."""
    from evalharness.gates import load_baseline

    stored = load_baseline(file)
    say(f"run       {stored.run}")
    for key, value in stored.identity.items():
        say(f"{key:<9} {value[:16]}")
    for e in stored.estimates:
        scope = ",".join(f"{k}={v}" for k, v in e.scope.items())
        value = "-" if e.value is None else f"{e.value:.6g}"
        paired = ", paired" if stored.outcomes(e.id, e.scope) is not None else ""
        say(f"{e.id}{f'[{scope}]' if scope else ''}: {value}{paired}")


def _save(run: Path, to: Path) -> None:
    from evalharness.api import load_run
    from evalharness.gates import collect, save_baseline
    from evalharness.metrics.layers import metric_of
    from evalharness.results.judge import identity
    from evalharness.spec.estimate import Estimate

    loaded: Any = load_run(run)
    result = loaded.result
    # The result lists errors of layers separately from the other metrics.
    layers = [
        Estimate(
            id=metric_of(row.error),
            scope={"layer": row.layer},
            value=row.median,
            low=row.low,
            high=row.high,
            n=row.tokens,
            unit="relative L2",
            direction="lower",
            reason="no token reached this module" if row.median is None else None,
        )
        for row in result.layers
    ]
    kept = collect(loaded.estimates)
    save_baseline(to, str(run), identity(loaded.run), [*result.metrics, *layers], kept)
    say(to)
