"""Strings that hide something are spelled out before any format escapes them."""

from __future__ import annotations

import doctest
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalharness.metrics import FAMILIES, REGISTRY
from evalharness.report import glossary, layer_tables, numbers, safe_text
from evalharness.report.glossary import family, metric_name


@given(st.text())
def test_visible_text_holds_no_character_that_hides_itself(raw: str) -> None:
    """No control, bidi override, zero width or private character is left."""
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not any(unicodedata.category(c) in hidden for c in safe_text.visible(raw))


@given(st.text())
def test_only_newlines_differ_when_they_are_kept(raw: str) -> None:
    """A prompt keeps its lines and nothing else that a label would not."""
    assert safe_text.visible(raw, keep_newlines=True).replace("\n", "↵") == safe_text.visible(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain", "plain"),
        ("\x1b[31m", "⟨ESC⟩[31m"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("x\u200by", "x⟨U+200B⟩y"),
        ("\ufeff", "⟨U+FEFF⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("tab\tend\n", "tab⇥end↵"),
        ("Grüße 漢字 😀", "Grüße 漢字 😀"),
    ],
)
def test_what_is_hidden_gets_a_name(raw: str, expected: str) -> None:
    """Readable text stays as it is."""
    assert safe_text.visible(raw) == expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, "everything"),
        ({"corpus": "pydoc"}, "corpus pydoc"),
        ({"slice": "domain:code"}, "slice domain:code"),
        ({"task": "mmlu", "metric": "acc"}, "task mmlu (acc)"),
        ({"task": "mmlu"}, "task mmlu"),
        ({"layer": "model.layers.3"}, "layer model.layers.3"),
        ({"corpus": "wiki", "slice": "long"}, "corpus wiki, slice long"),
        ({"metric": "acc", "mine": "x"}, "metric acc, mine x"),
    ],
)
def test_a_scope_is_said_in_words(scope: dict[str, str], expected: str) -> None:
    """The whole, a corpus, a slice, a task with its score, a layer."""
    assert glossary.scope_words(scope) == expected


@given(st.text(max_size=80), st.integers(3, 40))
def test_a_short_label_is_never_longer_than_asked(raw: str, limit: int) -> None:
    """It keeps both ends, where names differ."""
    assert len(safe_text.short(raw, limit)) <= limit


def test_a_cut_is_said() -> None:
    """No text ends early in silence."""
    assert safe_text.cut("abcdef", 3) == "abc … (3 more characters)"
    assert safe_text.cut("abc", 3) == "abc"


def test_every_named_metric_belongs_to_a_family_that_claims_it() -> None:
    """A metric of the design never lands in Other; an unknown one does, under its own id."""
    assert not [m for m in REGISTRY if family(m) is FAMILIES[-1]]
    assert family("toxicity.rate") is FAMILIES[-1]
    assert metric_name("toxicity.rate") == "toxicity.rate"


@pytest.mark.parametrize("module", [safe_text, glossary, numbers, layer_tables])
def test_the_examples_in_docstrings_hold(module: object) -> None:
    """What a docstring shows is what the function does."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
