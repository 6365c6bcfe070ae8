"""Strings from models, files and tokens, made safe to look at.

A token, a prompt or a model name may hold anything: markup, terminal escapes, a right-to-left
override that reorders the line it stands in. Escaping for a format (HTML, XML, Markdown) keeps
the page whole; :func:`visible` keeps the reader from being fooled, by spelling such characters
out. Every renderer calls it before it escapes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from evalharness.spec.estimate import Scope

# Controls, format characters (bidi, zero width), surrogates, private use, unassigned, separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NAMED = {"\t": "⇥", "\n": "↵", "\r": "⟨CR⟩", "\x00": "⟨NUL⟩", "\x1b": "⟨ESC⟩", "\x7f": "⟨DEL⟩"}
_PLAIN = re.compile(r"[\x20-\x7e]*\Z")


def pieces(text: str, *, keep_newlines: bool = False) -> Iterator[tuple[bool, str]]:
    """Yield ``(is_hidden, run)``: readable runs, and hidden characters spelled out."""
    if _PLAIN.match(text):
        if text:
            yield False, text
        return
    run: list[str] = []
    for char in text:
        if char == "\n" and keep_newlines:
            run.append(char)
        elif unicodedata.category(char) in _UNSEEN:
            if run:
                yield False, "".join(run)
                run = []
            yield True, _spelled(char)
        else:
            run.append(char)
    if run:
        yield False, "".join(run)


def _spelled(char: str) -> str:
    """Return a visible stand-in: a name where it is known, or the code point, in brackets."""
    return _NAMED.get(char, f"⟨U+{ord(char):04X}⟩")


def visible(text: str, *, keep_newlines: bool = False) -> str:
    """Return ``text`` with every character that does not show itself spelled out.

    >>> visible("a\\x1b[31mb\\u202ec")
    'a⟨ESC⟩[31mb⟨U+202E⟩c'
    """
    return "".join(run for _, run in pieces(text, keep_newlines=keep_newlines))


def cut(text: str, limit: int) -> str:
    """Return ``text`` cut to ``limit`` characters; a cut is said with its length."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def short(text: str, limit: int) -> str:
    """Return a one-line label of at most ``limit`` characters, shortened in the middle."""
    text = visible(text)
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def scope_words(scope: Scope) -> str:
    """Say in words what a scope covers.

    >>> scope_words({"task": "arc_easy", "metric": "acc"})
    'task arc_easy (acc)'
    """
    if not scope:
        return "everything"
    known = {key: scope[key] for key in ("corpus", "slice", "layer") if key in scope}
    words = [f"{key} {visible(value)}" for key, value in known.items()]
    if "task" in scope:
        metric = f" ({visible(scope['metric'])})" if "metric" in scope else ""
        words.append(f"task {visible(scope['task'])}{metric}")
    elif "metric" in scope:
        words.append(f"metric {visible(scope['metric'])}")
    rest = sorted(set(scope) - {"corpus", "slice", "layer", "task", "metric"})
    return ", ".join(words + [f"{visible(key)} {visible(scope[key])}" for key in rest])


def scope_key(scope: Scope) -> str:
    """Return the compact form used in names of test cases: ``corpus=pydoc, slice=code``."""
    return ", ".join(f"{visible(key)}={visible(scope[key])}" for key in sorted(scope))


def plural(n: int, noun: str) -> str:
    """Return ``1 gate``, ``3 gates``, ``1,204 documents``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def sentence(text: str) -> str:
    """Return ``text`` ending in a full stop."""
    text = text.strip()
    return text if not text or text[-1] in ".!?…" else text + "."
