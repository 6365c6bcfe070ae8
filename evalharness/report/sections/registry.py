"""The sections of report.html, in order, and the registry that other packages add to.

A section is a title and a function from the result to HTML; returning ``""`` says that nothing of
it was measured, and the page then says so with ``missing``. Another package offers a
:class:`Section` under the entry point group ``evalharness.report_sections``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from evalharness.report import bars, charts, numbers
from evalharness.report import chart_data as figures
from evalharness.report import glossary as words
from evalharness.report import layer_tables as depth
from evalharness.report import tables as view
from evalharness.report.assets import reports_dir
from evalharness.report.sections.internals import inside
from evalharness.report.sections.repair import repair_html
from evalharness.report.text import cut, pieces, plural, scope_words, sentence, short, visible
from evalharness.spec.result import Result

GROUP = "evalharness.report_sections"
MOST_FLIPPED = 60
MOST_TOKENS = 60
MOST_DOCUMENTS = 8
MOST_RELIABILITY = 3
MOST_PROMPT = 1500


@dataclass(frozen=True)
class Section:
    """One section: an anchor, a title, its HTML, and what is said where there is none."""

    id: str
    title: str
    render: Callable[[Result], str]
    missing: str = "Not measured in this run."


@cache
def environment() -> Environment:
    """Return the Jinja2 environment: autoescape on, hidden characters spelled out everywhere."""
    env = Environment(
        loader=FileSystemLoader(reports_dir()),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        attr=lambda text: Markup(escape(visible(str(text)))),  # noqa: S704
        bytes=numbers.byte_size,
        count=numbers.count,
        cut=cut,
        duration=numbers.duration,
        figures=numbers.figures,
        fingerprint=lambda text: short(str(text).removeprefix("sha256:"), 17),
        large=numbers.large,
        percent=numbers.percent,
        places=numbers.number,
        scope=scope_words,
        sentence=sentence,
        short=short,
        text=_text,
        token=_token,
    )
    env.globals.update(
        ARROWS=words.ARROWS,
        DIRECTIONS=words.DIRECTIONS,
        SYMBOLS=words.SYMBOLS,
        estimate=numbers.estimate,
        noise_floor=numbers.noise_floor,
        family=words.family,
        metric_name=words.metric_name,
        plural=plural,
        tile_name=words.tile_name,
        unit=words.unit_words,
        css=Markup((reports_dir() / "report.css").read_text("utf-8")),  # noqa: S704
    )
    return env


def _finalize(value: Any) -> Any:
    """Prepare every ``{{ … }}``: a missing number is a dash, a plain string shows what it hides."""
    if value is None:
        return numbers.MISSING
    if isinstance(value, str) and not isinstance(value, Markup):
        return numbers.typeset(value) if isinstance(value, numbers.Text) else visible(value)
    return value


def _text(text: str, keep_newlines: bool = True) -> Markup:
    """Return running text with hidden characters set apart and newlines kept."""
    return Markup("").join(
        Markup('<span class="ctl">{}</span>').format(run) if hidden else escape(run)
        for hidden, run in pieces(text, keep_newlines=keep_newlines)
    )


def _token(text: str) -> Markup:
    """Return a token with its spaces and hidden characters shown; an empty one is said."""
    if not text:
        return Markup('<span class="ctl">empty</span>')
    stripped = text.strip(" ")
    if not stripped:
        return _text("␣" * len(text))
    lead, trail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return _text("␣" * lead + stripped + "␣" * trail, keep_newlines=False)


def template(name: str, **context: Any) -> str:
    """Render a template of ``reports/``."""
    return environment().get_template(name).render(**context)


# ---------------------------------------------------------------- the sections


def gates(r: Result) -> str:
    """The gates table: what was decided, on what evidence."""
    rows, folded = view.fold(view.gate_rows(r))
    waivers = view.waivers(r)
    if not rows:
        return ""
    return template("sections/gates.html.j2", rows=rows, folded=folded, waivers=waivers)


def compared(r: Result) -> str:
    """Both sides with the compression measured from the loaded models."""
    return template("sections/compared.html.j2", r=r, c=r.compared)


def metrics(r: Result) -> str:
    """Estimates with intervals, by family."""
    groups = view.families(r, ("loss", "divergence", "logits", "calibration", "other"))
    return template("sections/metrics.html.j2", groups=groups) if groups else ""


def scopes(r: Result) -> str:
    """Which kinds of text differ: key metrics by corpus and slice."""
    table = view.scope_table(r)
    return template("sections/scopes.html.j2", table=table) if table else ""


def kl(r: Result) -> str:
    """Distribution of the per-token KL."""
    figure = r.figures.kl
    svg = charts.kl_histogram(figure, figures.kl_marks(r)) if figure else ""
    if not svg or figure is None:
        return ""
    total = sum(figure.counts) + figure.zeros
    return template("sections/kl.html.j2", svg=Markup(svg), zeros=figure.zeros, total=total)  # noqa: S704


def calibration(r: Result) -> str:
    """Reliability diagrams of both sides."""
    drawn = []
    found = figures.reliabilities(r)
    for k, item in enumerate(found[:MOST_RELIABILITY]):
        svg = charts.reliability(item.sides, f"reliability-{k}", item.name)
        if svg:
            drawn.append((item, Markup(svg)))  # noqa: S704
    more = [item.name for item in found[MOST_RELIABILITY:]]
    return template("sections/calibration.html.j2", drawn=drawn, more=more) if drawn else ""


def layers(r: Result) -> str:
    """Where the error comes from: blocks over depth, linears by kind, the worst modules."""
    groups = view.families(r, ("layer",))
    if not r.layers:
        return template("sections/metrics.html.j2", groups=groups) if groups else ""
    labels, curves = depth.blocks(r.layers)
    linears = [row for row in r.layers if row.kind != "block"]
    own = depth.own_error(linears)
    kinds = sorted(depth.kinds(linears), key=lambda error: error != own)
    grids = [g for error in kinds if (g := depth.grid(r.layers, error)) is not None]
    return template(
        "sections/layers.html.j2",
        worst=depth.worst(r.layers),
        svg=Markup(charts.layer_curves(curves, labels)),  # noqa: S704
        grids=[(g, bars.heat_map(g), bars.heat_legend(g)) for g in grids],
        worst_linears=depth.worst_first(linears, own)[: depth.WORST],
        linears=sum(row.error == own for row in linears),
        outside=depth.outside_blocks(r.layers, own) if own else [],
        blocks=[row for row in r.layers if row.kind == "block"],
        kinds=words.ERROR_KINDS,
        matching=r.matching,
        shown=numbers.shown,
    )


def tasks(r: Result) -> str:
    """lm-eval's scores on both sides, the paired shift, and the items that flipped."""
    rows = view.task_rows(r)
    named = {(t.task, t.metric) for t in r.tasks}
    moved = [e for row in rows for e in row.moved]
    others = [
        e
        for e in r.metrics
        if "task" in e.scope
        and e not in moved
        and not (e.id.startswith("task.") and (e.scope["task"], e.scope.get("metric", "")) in named)
    ]
    if not (rows or r.flipped or others):
        return ""
    return template(
        "sections/tasks.html.j2",
        rows=rows,
        moved=[(row.task.task, row.moved) for row in rows if row.moved],
        others=others,
        flipped=r.flipped[:MOST_FLIPPED],
        more=max(0, len(r.flipped) - MOST_FLIPPED),
        prompt_limit=MOST_PROMPT,
    )


def tokens(r: Result) -> str:
    """The tokens where the two sides differ most, in context."""
    if not r.worst_tokens:
        return ""
    groups: dict[str, list[Any]] = {}
    for t in r.worst_tokens[:MOST_TOKENS]:
        groups.setdefault(t.by, []).append(t)
    return template("sections/tokens.html.j2", groups=groups, measures=words.TOKEN_MEASURES)


def documents(r: Result) -> str:
    """NLL shift of every document, by corpus."""
    svg = charts.document_strip(figures.documents(r))
    rows, without = figures.points(r.figures)
    if not rows:
        return ""
    return template(
        "sections/documents.html.j2",
        svg=Markup(svg),  # noqa: S704
        rows=rows[:MOST_DOCUMENTS],
        without=without,
    )


def cost(r: Result) -> str:
    """What the compression buys: bytes, seconds, and their ratios."""
    groups = view.families(r, ("cost",))
    if not groups and not r.cost.seconds and not r.cost.memory:
        return ""
    return template(
        "sections/cost.html.j2",
        groups=groups,
        reason=r.cost.reason,
        seconds=view.by_side(r.cost.seconds),
        memory=view.by_side(r.cost.memory),
    )


def provenance(r: Result) -> str:
    """The environment, the fingerprints and the command that repeats the run."""
    return template("sections/environment.html.j2", r=r)


def reading(r: Result) -> str:
    """Short definitions."""
    return template("sections/reading.html.j2", r=r)


SECTIONS: list[Section] = [
    Section(
        "gates", "Gates", gates, "No gate was applied: nothing was decided, so nothing passed."
    ),
    Section("compared", "What was compared", compared),
    Section("metrics", "Metrics", metrics, "No metric was measured."),
    Section("scopes", "By corpus and slice", scopes, "Not measured by corpus or slice."),
    Section("kl", "KL divergence over tokens", kl, "The distribution of KL was not measured."),
    Section("documents", "Documents", documents, "No loss by document was measured."),
    Section("layers", "Layers", layers, "Not measured: add `probes: [layers]` to the suite."),
    Section(
        "inside",
        "Weights and activations",
        inside,
        "Not measured: add `probes: [activations]` to the suite.",
    ),
    Section(
        "repair", "Sensitivity and repair", repair_html, "Not looked for: `evalharness bisect RUN`."
    ),
    Section("calibration", "Calibration", calibration, "Calibration was not measured."),
    Section("tasks", "Tasks", tasks, "Not measured: the suite names no task."),
    Section("tokens", "Worst tokens", tokens, "No token was recorded as worst."),
    Section("cost", "Cost", cost, "Cost was not measured."),
    Section("environment", "Environment and how to repeat it", provenance),
    Section("reading", "How to read this", reading),
]


def register(section: Section, *, before: str = "environment") -> None:
    """Add a section, placed before the one named ``before``."""
    if any(section.id == known.id for known in SECTIONS):
        raise ValueError(f"section: id {section.id!r} is taken")
    places = [k for k, known in enumerate(SECTIONS) if known.id == before]
    SECTIONS.insert(places[0] if places else len(SECTIONS), section)


@cache
def load_plugins() -> None:
    """Register the sections that installed packages offer."""
    for point in entry_points(group=GROUP):
        section = point.load()
        if not isinstance(section, Section):
            raise TypeError(
                f"entry point {point.name} of group {GROUP}: must be a Section (got "
                f"{type(section).__name__})"
            )
        register(section)
