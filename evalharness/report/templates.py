"""The page's templates: Jinja2 with autoescape on and hidden characters spelled out everywhere."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from evalharness.errors import plural
from evalharness.report import glossary, numbers
from evalharness.report.glossary import scope_words
from evalharness.report.safe_text import cut, pieces, short, visible
from evalharness.run.assets import folder


@cache
def environment() -> Environment:
    """Return the Jinja2 environment: autoescape on, hidden characters spelled out everywhere."""
    env = Environment(
        loader=FileSystemLoader(folder("reports")),
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
        short=short,
        text=_text,
        token=_token,
    )
    env.globals.update(
        ARROWS=glossary.ARROWS,
        DIRECTIONS=glossary.DIRECTIONS,
        SYMBOLS=glossary.SYMBOLS,
        estimate=numbers.estimate,
        noise_floor=numbers.noise_floor,
        metric_name=glossary.metric_name,
        plural=plural,
        tile_name=glossary.tile_name,
        unit=glossary.unit_words,
        unit_beside=glossary.unit_beside,
        css=Markup((folder("reports") / "report.css").read_text("utf-8")),  # noqa: S704
    )
    return env


def _finalize(value: Any) -> Any:
    """Prepare every ``{{ … }}``: a missing number is a dash, a plain string shows what it hides."""
    if value is None:
        return numbers.MISSING
    if isinstance(value, str) and not isinstance(value, Markup):
        return numbers.typeset(value) if isinstance(value, numbers.NumberText) else visible(value)
    return value


def _text(text: str, keep_newlines: bool = True) -> Markup:
    """Return running text with hidden characters made visible and newlines kept."""
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
