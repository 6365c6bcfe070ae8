"""A command as data: quoted for a shell, and changed into the one that resumes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from evalharness.run.command import Command, add_resume


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": None, "stop-early": False}, []),
        ({"stop-early": True}, ["--stop-early"]),
        (
            {"limit": 0, "suite": Path("my suite.yaml")},
            ["--limit", "0", "--suite", "my suite.yaml"],
        ),
        ({"output": ["a.md", "b.xml"]}, ["--output", "a.md", "--output", "b.xml"]),
        ({"gates": "$HOME/it's.yaml"}, ["--gates", "$HOME/it's.yaml"]),
    ],
)
def test_a_shell_reads_the_words_that_were_meant(options: dict, words: list[str]) -> None:
    """Whatever is in them."""
    command = Command("compare", (Path("a b.yaml"), "c.yaml"), options)
    expected = ["evalharness", "compare", "a b.yaml", "c.yaml", *words]
    assert shlex.split(str(command)) == expected


HARD = Path('it\'s "a" $HOME `run` [b]x[/b] | *y*')


def test_what_to_do_about_a_run_can_be_typed() -> None:
    """As each sentence says it, with a name that means something to shells, rich and Markdown."""
    typed = add_resume(HARD).removeprefix("add ").removesuffix(" to the command that began it.")
    assert shlex.split(typed) == ["--resume", str(HARD)]
    assert shlex.split(str(Command.gate(HARD))) == [
        "evalharness", "gate", str(HARD), "--gates", "FILE", "--write",
    ]  # fmt: skip


def test_resuming_names_the_run_once() -> None:
    """Whatever named it before goes; all else stays, in its order."""
    options = {"out": "x", "limit": 3, "resume": "y", "device": "cpu"}
    command = Command("compare", ("a", "b"), options).resuming(Path("my run"))
    assert str(command) == "evalharness compare a b --limit 3 --device cpu --resume 'my run'"
    assert command.resuming(Path("z")).options["resume"] == Path("z")
