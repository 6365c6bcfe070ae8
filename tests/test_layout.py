"""The house keeps its order: what a linter of imports does not see."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import evalharness
from evalharness.metrics import REGISTRY

PACKAGE = Path(evalharness.__file__).parent
MOST_LINES = 400
WITHOUT_IDS = ("gates", "report", "results", "cli", "workflow", "bisect", "probes", "pair")


def packages() -> list[str]:
    """The package and every folder of it."""
    found = pkgutil.walk_packages(evalharness.__path__, "evalharness.")
    return ["evalharness", *(m.name for m in found if m.ispkg and "._data" not in m.name)]


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """String literals of a module, docstrings and parts of longer texts aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


@pytest.mark.parametrize("name", packages())
def test_no_module_is_named_like_a_function_of_its_package(name: str) -> None:
    """Importing the module would put it where the function was."""
    package = importlib.import_module(name)
    modules = {m.name for m in pkgutil.iter_modules(package.__path__)}
    exported = [n for n in getattr(package, "__all__", dir(package)) if n in modules]
    assert [n for n in exported if isinstance(getattr(package, n), FunctionType)] == []


@pytest.mark.parametrize("folder", WITHOUT_IDS)
def test_what_is_known_of_a_metric_is_written_on_it(folder: str) -> None:
    """No other folder names one: it would miss the next metric of the kind."""
    ids = set(REGISTRY)
    found = [
        f"{file.name}:{node.lineno} {node.value}"
        for file in (PACKAGE / folder).rglob("*.py")
        for node in strings(ast.parse(file.read_text()))
        if node.value in ids
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["evalharness", "tests", "benchmarks"])
def test_a_file_is_one_idea(folder: str) -> None:
    """Of four hundred lines at most."""
    root = PACKAGE.parent
    long = {
        str(f.relative_to(root)): n
        for f in (root / folder).rglob("*.py")
        if (n := len(f.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_what_lies_loose_at_the_root_is_what_everything_uses() -> None:
    """Everything else is in the folder that says what it is for."""
    loose = {f.stem for f in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert loose == {"api", "errors", "progress", "pytest_plugin", "version"}
