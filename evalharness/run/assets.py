"""The files that ship: suites, policies, report templates.

A clone keeps them at its root (``suites/``, ``gates/``, ``reports/``); a wheel carries the same
folders under ``evalharness/_data/``.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from evalharness.errors import InputError, nearest

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(kind: str) -> Path:
    """The shipped folder ``suites``, ``gates``, ``reports`` or ``schemas``."""
    for path in (_PACKAGE / "_data" / kind, _PACKAGE.parent / kind):
        if path.is_dir():
            return path
    raise InputError(f"the shipped {kind} are missing", path=_PACKAGE, remedy="Install it again.")


def shipped(kind: str) -> dict[str, Path]:
    """The YAML files that ship in ``kind``, by name."""
    return {p.stem: p for p in sorted(folder(kind).glob("*.yaml"))}


def schema_line(kind: str) -> str:
    """The first line of a YAML file we write: with it an editor completes and checks the rest."""
    return f"# yaml-language-server: $schema={(folder('schemas') / f'{kind}.json').as_uri()}"


def _short(path: Path) -> Path:
    """Relative to where we are, where it lies below: as people name it, and GitHub needs it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def find(kind: str, text: str | Path) -> Path:
    """A file by path, or a shipped one by name."""
    path = Path(text)
    with suppress(OSError):  # a name that is too long is no file
        if path.is_file():
            return path
    known = shipped(kind)
    if str(text) in known:
        return _short(known[str(text)])
    looks_like_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    hint = nearest(str(text), known)
    raise InputError(
        "no such file" if looks_like_path else f"neither a file nor one of the shipped {kind}",
        path=str(path)[:300],
        key=f"--{kind.removesuffix('s') if kind == 'suites' else kind}",
        remedy=(hint[:1].upper() + hint[1:]) or f"Shipped {kind}: {', '.join(known)}.",
    )
