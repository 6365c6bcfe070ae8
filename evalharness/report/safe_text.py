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
