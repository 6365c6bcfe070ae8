"""What the docs tell users to type exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from evalharness.cli.main import app
from evalharness.metrics import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs" / "ci").glob("*.yml"))]


def commands(text: str) -> list[list[str]]:
    """Every ``evalharness …`` line, continuation lines joined."""
    text = re.sub(r"\n\s+(?=--)", " ", text)
    return [
        m[1].split() for m in re.finditer(r"(?:^|`|- )\s*evalharness ([a-z][^`\n#]*)", text, re.M)
    ]


@pytest.mark.parametrize("file", DOCS, ids=lambda f: f.name)
def test_every_command_and_option_in_the_docs_exists(file: Path) -> None:
    """Against the parser's own table."""
    group: Any = get_command(app)
    found = commands(file.read_text())
    assert found
    for name, *arguments in found:
        assert name in group.commands, name
        command = group.commands[name]
        command = getattr(command, "commands", {}).get(arguments[0] if arguments else "", command)
        options = {o for p in command.params for o in p.opts}
        for argument in arguments:
            if argument.startswith("-"):
                assert argument in options, (name, argument)


@pytest.mark.parametrize("file", DOCS[1:], ids=lambda f: f.name)
def test_the_ci_examples_are_valid_yaml(file: Path) -> None:
    """They are copied as they are."""
    assert yaml.safe_load(file.read_text())


def test_every_command_has_help_with_an_example() -> None:
    """`--help` ends in one."""
    group: Any = get_command(app)
    for name, command in group.commands.items():
        leaves = getattr(command, "commands", {name: command})
        for leaf in leaves.values():
            assert (leaf.epilog or "").startswith("Example: evalharness"), leaf.name
            assert leaf.help, leaf.name


def test_the_metrics_of_the_readme_are_registered() -> None:
    """Whole ids only; families are written with a star."""
    section = (ROOT / "README.md").read_text().split("## What is measured")[1].split("##")[0]
    for id in re.findall(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)+)`", section):
        assert id in REGISTRY, id


def test_every_script_the_readme_claims_exists() -> None:
    """A claim names the script that shows it."""
    for script in re.findall(r"`(benchmarks/[a-z_]+\.py)`", (ROOT / "README.md").read_text()):
        assert (ROOT / script).is_file(), script


def test_what_the_architecture_names_exists() -> None:
    """Every file, and every folder of the package has its line in the table."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    package = ROOT / "evalharness"
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        assert (package / name).is_file() or list(package.glob(f"*/{name}")), name
    table = {
        row.strip("`/")
        for line in text.splitlines()
        if line.startswith("| ")
        for row in re.findall(r"`[a-z_/.]+`", line.split("|")[1])
    }
    folders = {p.name for p in package.iterdir() if (p / "__init__.py").is_file()}
    loose = {p.name for p in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert folders | loose <= table
    assert len(loose) + 2 <= 7  # the only loose files
