"""Strings from models, files and tokens, made safe to look at.

A token, a prompt or a model name may hold anything: markup, terminal escapes, a right-to-left
override that reorders the line it stands in. Escaping for a format (HTML, XML, Markdown) keeps
the page whole; `visible` keeps the reader from being fooled, by spelling such characters
out. Every renderer calls it before it escapes.
"""

from __future__ import annotations

from evalharness.spec.visible_text import pieces, visible

__all__ = ["cut", "pieces", "short", "visible"]


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
