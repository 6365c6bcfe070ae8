"""``evalharness cache``: what is kept of references, so that candidates need not pay for them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalharness.cli.stdout import say
from evalharness.errors import InputError, RunError

if TYPE_CHECKING:
    from evalharness.pair.texts.hidden_cache import Entry

cache_app = typer.Typer(
    help="List, remove or check the references' hidden states in $EVALHARNESS_CACHE "
    "(default: ~/.cache/evalharness).",
    no_args_is_help=True,
)


@cache_app.command("ls", epilog="Example: evalharness cache ls")
def ls() -> None:
    """List what is kept, one line a model."""
    say(f"{'model':16} {'tokens':>12} {'entries':>8} {'MiB':>9} {'kB/token':>9}  name")
    for model, entries in sorted(_by_model().items()):
        tokens, size = sum(e.tokens for e in entries), sum(e.bytes for e in entries)
        say(
            f"{model[:16]} {tokens:12,} {len(entries):8,} {size / 2**20:9,.1f} "
            f"{size / max(1, tokens) / 1e3:9.2f}  {entries[0].name} ({entries[0].dtype})"
        )


@cache_app.command("rm", epilog="Example: evalharness cache rm smollm2-135m")
def rm(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL…", help="Names, or ids that ls prints.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of every model.")] = False,
) -> None:
    """Remove what is kept of a model."""
    found = _by_model()
    if not models and not everything:
        raise InputError("give a MODEL that ls prints, or --all", key="cache rm")
    for asked in models or []:
        if not any(_is(asked, m, e) for m, e in found.items()):
            raise InputError(
                f"nothing is kept of {asked!r}", key="cache rm", remedy="`evalharness cache ls`"
            )
    gone = [
        entry
        for model, entries in found.items()
        for entry in entries
        if everything or any(_is(asked, model, entries) for asked in models or [])
    ]
    for entry in gone:
        entry.path.unlink(missing_ok=True)
    if everything:
        for path in _files():  # those that do not even say whose they are
            path.unlink(missing_ok=True)
    say(f"removed {len(gone)} entries, {sum(e.bytes for e in gone) / 2**20:,.1f} MiB")


@cache_app.command("verify", epilog="Example: evalharness cache verify")
def verify() -> None:
    """Read every entry and remove those that are damaged; exits 4 if there were any."""
    from evalharness.pair.texts.hidden_cache import DamagedError, read

    files = _files()
    damaged = 0
    for path in files:
        try:
            entry, _ = read(path)
            if entry.key != path.stem:
                raise DamagedError("it is named after another batch")
        except DamagedError as error:
            damaged += 1
            path.unlink(missing_ok=True)
            say(f"removed {path}: {error}")
    say(f"{len(files)} entries, {damaged} damaged")
    if damaged:
        raise RunError("entries were damaged: they are removed, and will be computed again")


def _files() -> list[Path]:
    from evalharness.pair.texts.hidden_cache import default_root, entries

    return list(entries(default_root()))


def _by_model() -> dict[str, list[Entry]]:
    from evalharness.pair.texts.hidden_cache import DamagedError, describe

    found: dict[str, list[Entry]] = defaultdict(list)
    for path in _files():
        try:
            entry = describe(path)
        except DamagedError:
            continue  # `verify` finds it
        found[entry.model].append(entry)
    return found


def _is(asked: str, model: str, entries: list[Entry]) -> bool:
    return asked == entries[0].name or (len(asked) >= 8 and model.startswith(asked))
