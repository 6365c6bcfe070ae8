"""The command line as a process: what goes where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalharness.cli.main import main
from evalharness.workflow.compare import compare
from tests.cli.command import cli
from tests.workflow.jobs import job, typed


@pytest.mark.e2e
def test_nothing_but_the_result_reaches_stdout(project: Path) -> None:
    """Progress goes to stderr."""
    done = typed(project, "candidate.yaml", "--out", "o", "--format", "json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdict"] == "FAIL"
    assert "loading base" in done.stderr


def test_help_starts_without_heavy_imports() -> None:
    """`--help` is parsed before pandas, scipy or torch are needed."""
    code = (
        "import sys\nfrom evalharness.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'matplotlib', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
def test_a_dry_run_loads_no_weights_and_says_what_it_would_do(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents, windows, slices and gates; no directory is made."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("evalharness.engines.loading.load", refuse)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    code, out, _ = cli(
        "compare",
        project / "base.yaml",
        project / "candidate.yaml",
        "--suite",
        project / "suite.yaml",
        "--gates",
        project / "gates.yaml",
        "--out",
        project / "run",
        "--dry-run",
    )
    assert code == 0
    assert out.startswith("ok: every input is valid; no weights were loaded")
    for text in ("12 documents, ", " windows, ", "slice    odd: 6 documents", "top1.agreement"):
        assert text in out
    assert not (project / "run").exists()


@pytest.mark.e2e
def test_a_reader_that_leaves_does_not_change_the_exit_code(project: Path) -> None:
    """`evalharness gate RUN | head` still fails where a gate does."""
    result, run = compare(job(project))
    assert result.exit_code == 1
    command = [sys.executable, "-m", "evalharness", "gate", str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 1


def test_want_of_memory_is_no_failed_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 4, in one line; and NumPy's own library, which would exit with 1, takes little."""

    def fails() -> None:
        raise MemoryError

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setattr("evalharness.cli.main.app", fails)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 4
    assert capsys.readouterr().err == "error: out of memory. What was recorded is kept.\n"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
