"""Text from files, models and tokens, made safe to print: nothing in it is a command.

A token, a name or a key may hold a terminal escape, a right-to-left override that reorders the line
it stands in, or a line break after which GitHub reads a command.
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


def printable(text: str) -> str:
    """Return one line of ``text`` for a terminal or a log that GitHub reads for commands.

    >>> printable("::error::forged")
    ': :error::forged'
    """
    return no_command(visible(text))


def no_command(line: str) -> str:
    """Return a line that is ours, some words of which may be a file's, as no command to GitHub."""
    return re.sub(r"^(\s*):(?=:)", r"\1: ", line.replace("##[", "# #["))
