"""What the commands print, and the files that they copy elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from evalharness.cli.options import Format
from evalharness.cli.stdout import PipeConsole, complain, reader_may_leave, show
from evalharness.errors import InputError
from evalharness.run.command import Command
from evalharness.spec.visible_text import printable

if TYPE_CHECKING:
    from evalharness.spec.result import Result
    from evalharness.workflow.plan import Job


def print_plan(jobs: Sequence[Job]) -> None:
    """Say what ``jobs`` would do, as `--dry-run` does."""
    from evalharness.cli.dry_run import describe

    show(*describe(jobs))


def command_of(context: typer.Context) -> Command:
    """The command that was typed, without the options that were left at their defaults."""
    arguments: list[str | Path] = []
    options: dict[str, Any] = {}
    for parameter in context.command.params:
        value: Any = context.params.get(parameter.name or "")
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        if parameter.param_type_name == "argument":
            arguments += value if isinstance(value, list | tuple) else [value]
        elif value is False:  # the second of a pair such as --cache/--no-cache
            options[_long(parameter.secondary_opts)] = True
        else:
            options[_long(parameter.opts)] = value
    return Command(context.info_name or "", tuple(arguments), options)


def _long(names: list[str]) -> str:
    return max(names, key=len).removeprefix("--")


_BY_SUFFIX = {
    ".html": "report.html",
    ".json": "result.json",
    ".md": "summary.md",
    ".xml": "junit.xml",
}


def check_outputs(output: list[Path] | None) -> None:
    """Raise `InputError` for a file that cannot be written, before anything is measured."""
    for file in output or []:
        if file.suffix not in _BY_SUFFIX or not file.resolve().parent.is_dir():
            raise InputError(
                "must end in .html, .json, .md or .xml, in a directory that exists",
                path=file,
                key="--output",
                remedy="The suffix says what is written.",
            )
        if file.is_dir() or not os.access(
            file if file.exists() else file.resolve().parent, os.W_OK
        ):
            raise InputError("cannot be written", path=file, key="--output")


def deliver(run: Path, result: Result, output: list[Path] | None) -> None:
    """Copy what was asked for, and tell GitHub where it runs us.

    What cannot be written is said; the verdict is the exit code all the same.
    """
    for file in output or []:
        with said_if_unwritable(file):
            shutil.copyfile(run / _BY_SUFFIX[file.suffix], file)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with (
            said_if_unwritable(Path(summary)),
            open(summary, "a", encoding="utf-8", errors="replace") as step,
        ):
            step.write((run / "summary.md").read_text(encoding="utf-8") + "\n")
    if os.environ.get("GITHUB_ACTIONS"):
        from evalharness.report import github_annotations

        # GitHub reads both streams; stdout carries the result alone.
        with suppress(OSError):
            print(*github_annotations(result), sep="\n", file=sys.stderr)


@contextmanager
def said_if_unwritable(file: Path) -> Iterator[None]:
    """Write ``file`` inside; where that fails, it is a warning."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        complain(f"warning: {file}: could not be written ({error})")


def show_result(result: Result, path: Path | None, format: Format) -> None:
    """Print a result on stdout, as ``format`` says, and where its report is if there is one."""
    with reader_may_leave(needed=False):
        if format is Format.json:
            print(result.model_dump_json(indent=1))
            return
        from evalharness.report import next_step, print_summary

        console = PipeConsole(soft_wrap=False)
        print_summary(result, console)
        if (step := next_step(result, path)) is not None:
            # Unbroken, whatever the width: they are to be copied.
            console.print()
            console.print(printable(f"fails: {step.gate}"))
            if step.cause:
                console.print(printable(f"likely cause: {step.cause}"))
            console.print("next:")
            for command in step.commands:
                console.print(printable(f"  {command}"), soft_wrap=True)
        if path is not None:
            console.print()
            console.print(printable(f"report: {path / 'report.html'}"), soft_wrap=True)
