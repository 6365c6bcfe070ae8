"""Text from files on its way to a terminal or to GitHub, and places that cannot be written."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import evalharness
from evalharness.cli.main import main
from evalharness.cli.output import check_outputs, deliver
from evalharness.errors import InputError
from evalharness.progress import Progress
from evalharness.report.terminal import plain_text
from evalharness.spec.visible_text import printable
from tests.cli.command import cli
from tests.report.conftest import make_any

PACKAGE = Path(evalharness.__file__).parent
FORGED = "a\n::error file=x::forged \x1b[31m##[error]too[/b][bold]"


def evalharness_(*words: str, shell: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command as a process, with ``shell`` after it."""
    command = f"'{sys.executable}' -m evalharness {' '.join(words)} {shell}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **env}
    )


def commands_in(text: str) -> list[str]:
    """Lines that GitHub would take for commands of ours."""
    return [
        line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line
    ] + [c for c in text if c == "\x1b"]


POLICIES = {
    "an unknown key": 'version: 1\n"{}": 1\ngates: []\n',
    "an unknown metric": 'gates: [{{metric: "{}", max: 1}}]\n',
    "a scope": 'gates: [{{metric: kl.mean, max: 1, scope: {{"{}": x}}}}]\n',
    "an extended file": 'extends: "{}"\ngates: []\n',
    "a baseline": 'baseline: "{}"\ngates: [{{metric: kl.mean, max: 5%, relative_to: baseline}}]\n',
}


@pytest.mark.parametrize("text", ["a\\n::error::forged", "a\\u2028::error::x", "##[error]x"])
@pytest.mark.parametrize("where", POLICIES)
def test_an_error_is_one_line_and_no_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: str, text: str
) -> None:
    """Whatever key or value it quotes."""

    (tmp_path / "p.yaml").write_text(POLICIES[where].format(text))
    for words in (["plan", "p.yaml"], ["plan", f"no{text}.yaml"]):
        sys_argv, sys.argv = sys.argv, ["evalharness", *words]
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            sys.argv = sys_argv
        shown = capfd.readouterr().err
        if left.value.code in (0, None):
            continue  # a baseline is only read when it is needed
        assert left.value.code == 2
        assert shown.startswith("error: ")
        assert shown.count("\n") == 1
        assert commands_in(shown) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error::x", ": :error::x"),
        ("  ::set-output name=x::y", "  : :set-output name=x::y"),
        ("name ##[error]x", "name # #[error]x"),
        ("a\r\nb", "a⟨CR⟩↵b"),
        ("\x1b]0;title\x07", "⟨ESC⟩]0;title⟨U+0007⟩"),
        ("int4[g32] a::b 10:30 #1", "int4[g32] a::b 10:30 #1"),
    ],
)
def test_a_printable_line(text: str, shown: str) -> None:
    """It shows everything and commands nothing."""
    assert printable(text) == shown


@pytest.mark.parametrize("name", ["int4[g32]", "a[/b]", "[bold]b", ":smile:", "[link=x]y[/link]"])
def test_names_are_no_markup(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """In progress, and in the table of a plan."""
    with Progress(quiet=False).step(f"loading {name}"):
        pass
    assert f"loading {name}: " in capfd.readouterr().err
    (tmp_path / "p.yaml").write_text(
        f'gates: [{{id: "{name}", metric: perplexity.ratio, max: 1.02}}]\n'
    )
    code, out, _ = cli("plan", "p.yaml")
    assert (code, name in out) == (0, True)


@pytest.mark.parametrize("width", range(1, 90, 11))
def test_a_line_that_is_wrapped_begins_no_command(width: int) -> None:
    """In a table, and in the summary."""
    words = "a" * width + " ::error::x ##[error]y"
    table = Table("gate", width=100)
    table.add_row(words)
    for text in (plain_text(table, 100), plain_text(Text(words), 80)):
        assert commands_in(text) == []
        assert "error]y" in text


def test_progress_forges_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A model's name may hold a line break."""
    progress = Progress(quiet=False, verbose=True)
    for tell in (progress.tell, progress.detail):
        tell(FORGED)
    with progress.step(FORGED), progress.count(FORGED, 1, "tokens"):
        pass
    assert commands_in(capfd.readouterr().err) == []


def test_nothing_is_printed_past_the_escaping() -> None:
    """`print` and consoles are used where text is escaped, and nowhere else."""
    allowed = {"cli/stdout.py", "cli/output.py", "cli/several.py", "progress.py"}
    allowed |= {"report/terminal.py"}
    found = [
        f"{name}:{node.lineno}"
        for file in PACKAGE.rglob("*.py")
        if (name := str(file.relative_to(PACKAGE))) not in allowed
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "Console")
        and not (node.args and isinstance(node.args[0], ast.Constant))
    ]
    assert found == []


@pytest.mark.e2e
@pytest.mark.parametrize("shell", ["| true", "> /dev/full", ">&-", "2>&-", "2>/dev/full"])
@pytest.mark.parametrize(
    "words", ["schema policy", "--help", "plan strict", "plan no.yaml", "baseline show no.json"]
)
def test_exit_code_1_is_kept_for_a_failed_gate(words: str, shell: str) -> None:
    """Whoever does not read what is printed."""
    done = evalharness_(words, shell=shell + "; echo code=${PIPESTATUS[0]}")
    code = int(done.stdout.rpartition("code=")[2])
    right = 2 if " no." in words else 4 if shell == "> /dev/full" and words != "--help" else 0
    assert code in ((0, 4) if words == "--help" else (right,)), done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_written_leaves_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy and GitHub's summary: both are said."""
    for name in ("summary.md", "result.json"):
        (tmp_path / name).write_text("x")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "where"))
    deliver(tmp_path, make_any("x"), [Path("/dev/full/x.json"), tmp_path / ("a" * 300 + ".md")])
    said = capsys.readouterr().err
    assert said.count("could not be written") == 3


@pytest.mark.parametrize("name", ["dir.html", "no/x.html", "x.pdf"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, name: str
) -> None:
    """A directory, a folder that is not there, a suffix that says nothing."""
    (tmp_path / "dir.html").mkdir()
    with pytest.raises(InputError, match="--output"):
        check_outputs([tmp_path / name])


@pytest.mark.parametrize("place", ["/proc/nowhere/run", "/dev/null/run", "a" * 300, "x/" * 3000])
def test_a_run_directory_that_cannot_be_made(project: Path, place: str) -> None:
    """It is refused with its name, and without a traceback."""
    files = ("base.yaml", "candidate.yaml", "--suite", "suite.yaml", "--gates", "gates.yaml")
    code, _, said = cli("compare", *files, "--out", place)
    assert (code, "--out: cannot be made" in said) == (2, True)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EACCES, 4), (errno.EROFS, 4), (errno.ENOSPC, 4), (errno.ENAMETOOLONG, 2)],
)
def test_what_a_file_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    """As in a run directory that may only be read."""

    def refuse() -> None:
        raise OSError(number, os.strerror(number), "run/result.json")

    monkeypatch.setattr("evalharness.cli.main.app", refuse)
    with pytest.raises(SystemExit) as left:
        main()
    said = f"error: run/result.json: {os.strerror(number)}. What was recorded is kept."
    denied = number in (errno.EACCES, errno.EROFS)
    said += " Give a place, or a copy of the run, that you may write in." if denied else ""
    assert (left.value.code, capsys.readouterr().err) == (code, said + "\n")


def test_a_traceback_is_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even of a fault of ours."""

    def fail() -> None:
        raise KeyError(FORGED)

    monkeypatch.setattr("evalharness.cli.main.app", fail)
    with pytest.raises(SystemExit, match="4"):
        main()
    assert commands_in(capsys.readouterr().err) == []
