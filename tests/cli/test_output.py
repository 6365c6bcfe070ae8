"""The command that a run says it was made by, and the one that resumes it."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evalharness.cli.main import app
from evalharness.cli.output import command_of
from evalharness.cli.stdout import complain
from evalharness.errors import InputError, Interrupted
from evalharness.report.templates import template
from evalharness.run.directory import Run
from evalharness.run.manifest import MANIFEST
from evalharness.spec.permissions import granted
from evalharness.workflow.interrupt import resumable
from evalharness.workflow.plan import compare_command
from tests.cli.command import cli


def commands(root: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Every command with its name, those of groups as well."""
    found: list[tuple[str, Any]] = []
    for name, command in root.commands.items():
        inside = getattr(command, "commands", None)
        found += [(prefix + name, command)] if inside is None else commands(command, f"{name} ")
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[n for n, _ in COMMANDS])
def test_every_command_says_what_it_does_with_an_example(name: str, command: Any) -> None:
    """And its options are told in sentences."""
    assert command.epilog.startswith(f"Example: evalharness {name}")
    assert command.help
    for parameter in command.params:
        assert parameter.param_type_name == "argument" or parameter.help.endswith((".", ")"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("compare a.yaml 'b c.yaml'", "compare a.yaml 'b c.yaml'"),
        ("compare -q --limit=3 a b c --no-cache", "compare a b c --no-cache --limit 3 --quiet"),
        (
            "compare a b -o r.html --offline -o s.md --format json --cache",
            "compare a b --cache --offline --output r.html --output s.md --format json",
        ),
        ("compare a b --suite quick --looks 5", "compare a b --suite quick --looks 5"),
        ("demo --out 'my run'", "demo --out 'my run'"),
        ("bisect run --gates strict --evaluations 9", "bisect run --gates strict --evaluations 9"),
    ],
)
def test_a_command_says_what_was_typed_and_no_default(typed: str, said: str) -> None:
    """With the long names, in the order of --help."""
    words = shlex.split(typed)
    command = dict(COMMANDS)[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        assert str(command_of(context)) == f"evalharness {said}"


def interrupted_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C, once so many blocks are written."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    write, written = Run.write_block, 0

    def dying(self: Run, block: str, tables: Any) -> None:
        nonlocal written
        write(self, block, tables)
        written += 1
        if written == blocks:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "write_block", dying)


def resumed(message: str) -> tuple[int, list[str]]:
    """Type the command that ``message`` ends with: its exit code and its words."""
    words = shlex.split(message.partition("Resume with: ")[2])
    assert words[0] == "evalharness"
    code, _, said = cli(*words[1:])
    assert "error" not in said.lower(), said
    return code, words


@pytest.mark.e2e
def test_several_candidates_resume_with_every_option_that_was_given(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the second; the first is not measured again."""
    (project / "copy.yaml").write_text("from: base.yaml\nname: copy\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("EVALHARNESS_CACHE", str(project / "cache"))
    with monkeypatch.context() as patched:
        interrupted_after(5, patched)
        options = "--suite suite.yaml --gates gates.yaml --no-cache --limit 3 --device cpu -q"
        code, _, said = cli(
            "compare", "base.yaml", "candidate.yaml", "copy.yaml", *options.split(), "--out", "all"
        )
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    assert code == 130
    assert [p.name for p in Path("all").iterdir() if (p / "result.json").exists()] == ["int4"]
    code, words = resumed(said)
    assert " ".join(words[5:]) == (
        "--suite suite.yaml --gates gates.yaml --no-cache --device cpu --limit 3 --quiet "
        "--resume all"
    )
    assert code == 1  # so far beyond the limit, three documents decide
    assert Path("all/copy/result.json").exists()


@pytest.mark.e2e
def test_what_init_compares_can_be_resumed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its policy is kept until then, and proposing from the finished run gives the limits."""
    monkeypatch.chdir(project)
    monkeypatch.setattr("tempfile.tempdir", str(project))
    with monkeypatch.context() as patched:
        interrupted_after(2, patched)
        code, _, said = cli("init", "base.yaml", "candidate.yaml", "--suite", "suite.yaml")
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    assert code == 130
    code, words = resumed(said)
    assert code == 0
    code, proposed, _ = cli("init", words[-1])
    assert (code, "metric: kl.mean" in proposed) == (0, True)
    before = set(project.iterdir())
    code, again, _ = cli("init", "base.yaml", "candidate.yaml", "--suite", "suite.yaml")
    assert code == 0
    assert set(project.iterdir()) == before
    limits = [re.findall(r"m(?:ax|in): .*", text) for text in (proposed, again)]
    assert limits[0] == limits[1] != []


@pytest.mark.parametrize("file", ["x.pdf", "nowhere/x.md"])
def test_an_output_that_cannot_be_written_is_refused_first(file: str) -> None:
    """Before any input is read."""
    code, _, said = cli("compare", "no.yaml", "no.yaml", "-o", file)
    assert (code, said) == (
        InputError.exit_code,
        f"{file}: --output: must end in .html, .json, .md or .xml, in a directory that exists. "
        "The suffix says what is written.",
    )


def test_the_version_is_shown() -> None:
    """And nothing else."""
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("evalharness ")


@pytest.mark.parametrize("name", ["it's", 'a "b" $HOME', "[bold]x[/bold] `y` | *z*", "漢 字"])
def test_the_resume_command_that_is_printed_can_be_typed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a narrow terminal and from the page, whatever means something there or to a shell."""
    monkeypatch.setenv("COLUMNS", "20")
    run = tmp_path / name
    run.mkdir(parents=True)
    (run / MANIFEST).write_text("{}")
    with granted(allow_code=True, confined=True):
        command = compare_command(("a.yaml", "b.yaml"), {}, out=run).resuming(run)
    expected = ["evalharness", "compare", "a.yaml", "b.yaml", "--allow-code", "--confined"]
    expected += ["--resume", str(run)]
    with pytest.raises(Interrupted) as caught, resumable(run, command):
        raise KeyboardInterrupt
    complain(f"error: {caught.value}")
    (line,) = capsys.readouterr().err.splitlines()
    assert shlex.split(line.partition("Resume with: ")[2]) == expected
    page = template(
        "sections/environment.html.j2", r=SimpleNamespace(command=str(command), environment={})
    )
    (shown,) = re.findall(r'<pre class="command">(.*?)</pre>', page)
    assert shlex.split(html.unescape(shown)) == expected
