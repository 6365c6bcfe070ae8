"""What the package imports is declared, and what only POSIX has is not needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import evalharness

PACKAGE = Path(evalharness.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
# Imported where the model or the machine has it, and asked for before.
WHERE_THERE = {"llama_cpp", "triton"}
POSIX = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The top-level modules of one statement."""
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name.partition(".")[0] for name in names]


def imported() -> dict[str, Path]:
    """Every top-level module that the package imports, with a file that does."""
    found: dict[str, Path] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= dict.fromkeys(modules(node), file)
    return {n: f for n, f in found.items() if n not in sys.stdlib_module_names}


def test_every_import_is_declared() -> None:
    """As a dependency, or in the extra of its name."""
    extras = PROJECT["optional-dependencies"]
    groups = [PROJECT["dependencies"], *(extras[n] for n in extras if n != "test")]
    declared = {canonical(d) for group in groups for d in group}
    distributions = packages_distributions()
    for module, file in imported().items():
        if module == "evalharness" or module in WHERE_THERE:
            continue
        names = {canonical(d) for d in distributions.get(module, [module])}
        assert names & declared, f"{file.name} imports {module}"


def test_extras_are_imported_only_where_they_are_used() -> None:
    """So that all else works without them."""
    extras = {n: d for n, d in PROJECT["optional-dependencies"].items() if n != "test"}
    optional = {canonical(d) for listed in extras.values() for d in listed}
    distributions = packages_distributions()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for module in modules(node):
                    names = {canonical(d) for d in distributions.get(module, [])}
                    assert not names & optional, f"{file.name} imports {module} at its top"


def test_every_dependency_is_imported() -> None:
    """What only the tests use is in their extra."""
    distributions = packages_distributions()
    used = {canonical(d) for m in imported() for d in distributions.get(m, [])}
    # accelerate is what transformers moves weights with.
    assert {canonical(d) for d in PROJECT["dependencies"]} - used <= {"accelerate"}


def test_what_only_posix_has_is_asked_for_with_care() -> None:
    """Each import of it stands in a `try`, so that no module fails where it is missing."""
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        tried = {s for t in ast.walk(tree) if isinstance(t, ast.Try) for s in t.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and node not in tried:
                assert not POSIX & set(modules(node)), f"{file.name} needs {modules(node)}"


def test_a_run_is_written_and_read_where_posix_modules_are_missing(tmp_path: Path) -> None:
    """As on Windows."""
    code = """
import builtins, sys
from pathlib import Path
found = builtins.__import__
def missing(name, globals=None, *rest, **more):
    # Other libraries ask for the platform instead, and would not take it for Windows.
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if name in ("fcntl", "resource") and importer in ("evalharness", "filelock"):
        raise ModuleNotFoundError(name)
    return found(name, globals, *rest, **more)
builtins.__import__ = missing
from evalharness.run.directory import Run
from evalharness.run.environment import peak_memory
run = Run.create(Path(sys.argv[1]) / "run", {"identity": "x"})
run.update(key=1)
run.close()
print(Run.resume(run.path, {"identity": "x"}).manifest["key"], peak_memory())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    assert done.stdout.split() == ["1", "None"], done.stderr
