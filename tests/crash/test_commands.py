"""The commands themselves on tiny models; the benchmarks take every point, and more damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(name: str, *arguments: str) -> None:
    """A process of its own: it forks, which one that has started threads must not."""
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]


def test_commands_that_measure_are_taken_up() -> None:
    run(
        "crash_points.py",
        "--command",
        "compare",
        "--command",
        "several",
        "--every",
        "97",
        "--twice",
    )


def test_commands_that_change_a_run_leave_it_whole() -> None:
    """Losses of power among them."""
    names = ("gate", "bisect", "baseline", "bless")
    commands = [text for name in names for text in ("--command", name)]
    run("crash_points.py", *commands, "--every", "53", "--power")


def test_damage_is_not_silent() -> None:
    run("corruptions.py", "--number", "8")
