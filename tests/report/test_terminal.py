"""The terminal summary fits 100 columns and is plain where there is no terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from evalharness.report import print_summary, text_summary
from evalharness.spec.result import Result


def printed(result: Result, *, encoding: str = "utf-8", width: int = 100, tty: bool = False) -> str:
    """What a console of the given kind receives."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    colours = "truecolor" if tty else None
    console = Console(
        file=file,
        width=width,
        force_terminal=tty,
        color_system=colours,
        _environ={},  # type: ignore[arg-type]
    )
    print_summary(result, console)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS"])
def test_the_first_line_is_the_verdict_and_the_pair(
    result: Callable[..., Result], verdict: str
) -> None:
    """Said in words, beside a sign."""
    first = text_summary(result(verdict)).splitlines()[0]
    assert first.endswith(f"{verdict}  smol-7b-instruct → smol-7b-instruct-int4")


def test_the_summary_holds_gates_metrics_tasks_and_the_worst_layer(
    result: Callable[..., Result],
) -> None:
    """The four questions, answered on one screen."""
    text = text_summary(result("FAIL"))
    for needed in (
        "6 gates: 3 PASS, 1 INCONCLUSIVE, 2 FAIL (1 waived, 1 not blocking)",
        "[1.068, 1.094]",
        "≤ 1.03",
        "waived",
        "not blocking",
        "Perplexity ratio ↓",
        "kl.p999",
        "mmlu_dev_cloze (acc)",
        "worst layer: model.layers.3.mlp.down_proj, own error",
        "16.00 → 4.95 bits per weight",
        "kernel dequantised on the fly; activations not quantised; KV cache not quantised",
        "claim and measurement differ: group_size",
    ):
        assert needed in text
    assert len(text.splitlines()) <= 63


def test_what_was_not_measured_is_said(bare: Result) -> None:
    """An empty run does not look like a good one."""
    text = text_summary(bare)
    assert "tasks: not measured" in text
    assert "layers: not measured" in text
    # A policy has a gate at least: only a result.json that something else has written.
    text = text_summary(bare.model_copy(update={"gates": []}))
    assert "no gate was applied: nothing was decided, so nothing passed" in text


@settings(max_examples=20, deadline=None)
@given(text=st.one_of(st.text(min_size=1), st.text("漢😀a[]/\x1b", min_size=1)))
def test_no_string_makes_a_line_longer_or_reaches_the_terminal_raw(
    any_text: Callable[..., Result], text: str
) -> None:
    """Wide characters, rich markup and escape sequences are only text."""
    lines = text_summary(any_text(text)).splitlines()
    assert max(cell_len(line) for line in lines) <= 100
    assert not any(c in line for line in lines for c in "\x1b\x07\x08\r\u202e")


def test_rich_markup_in_a_name_is_text(any_text: Callable[..., Result]) -> None:
    """``[red]`` in a name is five characters."""
    assert "[red]x[/red]" in text_summary(any_text("[red]x[/red]"))


def test_without_a_terminal_there_is_no_colour_and_no_padding(
    result: Callable[..., Result],
) -> None:
    """A log gets the same text as ``text_summary``."""
    plain = printed(result("FAIL"))
    assert "\x1b" not in plain
    assert plain == text_summary(result("FAIL"))
    assert all(line == line.rstrip() for line in plain.splitlines())


def test_a_terminal_gets_colour(result: Callable[..., Result]) -> None:
    """And the same words."""
    coloured = printed(result("FAIL"), tty=True)
    assert "\x1b[" in coloured
    assert "FAIL" in coloured


@pytest.mark.parametrize("width", [40, 80, 100, 240])
def test_no_column_is_lost_whatever_the_width(result: Callable[..., Result], width: int) -> None:
    """A narrow terminal wraps; a wide one does not stretch the tables."""
    text = printed(result("FAIL"), width=width)
    for needed in ("interval", "limit", "≥ -0.01", "perplexity", "✕→✓", "acc_norm"):
        assert needed in text
    assert max(cell_len(line) for line in text.splitlines()) <= max(80, min(width, 100))


def test_an_ascii_terminal_gets_signs_it_can_show(result: Callable[..., Result]) -> None:
    """Nothing crashes where the encoding is not a Unicode one."""
    text = printed(result("FAIL"), encoding="ascii")
    assert "x FAIL" in text
    assert "<= 1.03" in text
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_summary_needs_no_matplotlib() -> None:
    """The terminal does not wait for a plotting library."""
    import subprocess
    import sys

    code = "import sys, evalharness.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
