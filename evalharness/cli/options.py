"""The arguments and options that several commands share, each written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evalharness.spec.permissions import granted


class Format(StrEnum):
    """How a result is printed."""

    text = "text"
    json = "json"


RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Suite = Annotated[str, typer.Option("--suite", help="A suite file, or quick, demo, standard.")]
Gates = Annotated[str, typer.Option("--gates", help="A policy file, or a shipped one's name.")]
OtherGates = Annotated[
    Path | None, typer.Option("--gates", help="Another policy; default: the run's own.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run directory, new or empty.")
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="RUN", help="Resume this unfinished run.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Run both models on this device, such as cpu or cuda:1."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", help="Use at most N documents per corpus and N items per task."
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Let the files run Python code: of a task, of a model, in pickled weights.",
    ),
]
Confined = Annotated[
    bool,
    typer.Option("--confined", help="Refuse files that name others outside the repository."),
]
Outputs = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Also write FILE; its suffix says what: .html, .json, .md or .xml.",
    ),
]
OutputFormat = Annotated[Format, typer.Option("--format", help="What to print on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show the memory plan, and why.")]


def permit(context: typer.Context, *, allow_code: bool = False, confined: bool = False) -> None:
    """Allow, for as long as the command runs, what its options say."""
    context.with_resource(granted(allow_code=allow_code, confined=confined))
