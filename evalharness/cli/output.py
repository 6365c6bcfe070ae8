"""What the commands print, and the files that they copy elsewhere."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from evalharness.cli.options import Format
from evalharness.cli.stdout import PipeConsole, reader_may_leave
from evalharness.errors import InputError


def print_plan(jobs: Any) -> None:
    """Say what ``jobs`` would do, as `--dry-run` does."""
    from evalharness.cli.dry_run import describe

    parts = describe(jobs)
    with reader_may_leave():
        console = PipeConsole(width=100, highlight=False)
        for part in parts:
            console.print(part, markup=False, soft_wrap=isinstance(part, str))


def command_line() -> str:
    """Return the command that was typed, quoted so that it can be typed again."""
    return shlex.join(["evalharness", *sys.argv[1:]])


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


def deliver(run: Path, result: Any, output: list[Path] | None) -> None:
    """Copy what was asked for, and tell GitHub where it runs us."""
    for file in output or []:
        shutil.copyfile(run / _BY_SUFFIX[file.suffix], file)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as step:
            step.write((run / "summary.md").read_text(encoding="utf-8") + "\n")
    if os.environ.get("GITHUB_ACTIONS"):
        from evalharness.report import github_annotations

        # GitHub reads both streams; stdout carries the result alone.
        print(*github_annotations(result), sep="\n", file=sys.stderr)


def show_result(result: Any, path: Path, format: Format) -> None:
    """Print a result on stdout, as ``format`` says."""

    with reader_may_leave():
        if format is Format.json:
            print(result.model_dump_json(indent=1))
            return
        from evalharness.report import print_summary

        console = PipeConsole(soft_wrap=False)
        print_summary(result, console)
        console.print(f"\nreport: {path / 'report.html'}", highlight=False, soft_wrap=True)
