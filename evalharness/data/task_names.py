"""Where a task's YAML is, found by reading names only.

lm-eval's `TaskManager` parses all of its 14,000 files before it answers (17 s seen on one core).
Reading the lines that declare a name takes 1–2 s, and a plain task can then be loaded by its path.
Groups, tags and any name declared twice still go through lm-eval's own index.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SHIPPED = Path(__file__).parent / "tasks"

_VALUE = rb"""["']?([^\s"'#\[{&*|>][^\n"'#]*)"""
_NAME = re.compile(rb"^(task|group)[ \t]*:[ \t]*" + _VALUE, re.M)
_TAGS = re.compile(rb"^tag[ \t]*:[ \t]*([^\n]*(?:\n[ \t]*-[^\n]*)*)", re.M)
_WORD = re.compile(rb"[^\s\[\],\"'#-][^\s\[\],\"'#]*")


@dataclass(frozen=True)
class TaskNames:
    """Every name that the YAML files below a folder declare."""

    paths: dict[str, tuple[Path, ...]]  # of tasks and groups
    groups: frozenset[str]
    tags: frozenset[str]

    @property
    def known(self) -> set[str]:
        """All names, for a hint."""
        return set(self.paths) | self.tags

    def path(self, name: str) -> Path | None:
        """The one file that declares the plain task ``name``; None: ask lm-eval's index."""
        found = self.paths.get(name, ())
        if len(found) != 1 or name in self.groups or name in self.tags:
            return None
        return found[0]


def mentioned(name: str, folder: Path) -> bool:
    """Whether any task file below ``folder`` holds ``name`` at all; if not, it names no task."""
    word = name.encode()
    return any(
        word in path.read_bytes()
        for path in folder.rglob("*")
        if _may_declare(path.name) and path.is_file()
    )


def _may_declare(name: str) -> bool:
    """Whether a file is YAML by its name, or a template to include, often without suffix."""
    return "yaml" in name or "." not in name


@cache
def read_names(folder: Path) -> TaskNames:
    """Read the names declared below ``folder``; templates without ``.yaml`` may declare tags."""
    paths: dict[str, list[Path]] = defaultdict(list)
    groups: set[str] = set()
    tags: set[str] = set()
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in ("__pycache__", ".ipynb_checkpoints"))
        for name in sorted(names):
            if not _may_declare(name):
                continue
            path = Path(directory, name)
            text = path.read_bytes()
            for found in _TAGS.findall(text):
                tags.update(w.decode("utf-8", "replace") for w in _WORD.findall(found))
            if name.endswith(".yaml"):
                for kind, value in _NAME.findall(text):
                    word = value.strip().decode("utf-8", "replace")
                    paths[word].append(path)
                    if kind == b"group":
                        groups.add(word)
    return TaskNames({k: tuple(v) for k, v in paths.items()}, frozenset(groups), frozenset(tags))
