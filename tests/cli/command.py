"""The command line inside this process."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from evalharness.cli.main import app
from evalharness.errors import EvalHarnessError


def cli(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, errors mapped as `main` maps them."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, EvalHarnessError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr
