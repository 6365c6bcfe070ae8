"""What a task's YAML file may do: its own Python runs only where the user allows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from evalharness.compat import lm_eval, lm_eval_code
from evalharness.data.task_names import SHIPPED
from evalharness.errors import InputError
from evalharness.spec import permissions
from evalharness.spec.yamlfile import inspect_node

_READS = ("include", "data_files", "data_dir", "dataset_path", "use_prompt")


def guard_tasks() -> None:
    """Have lm-eval run nothing of files outside its package unless the user allows it."""
    lm_eval_code.guard(
        _check_function, _check_metric, _check_tree, sandbox=not permissions.code_allowed()
    )


def _check_function(path: Path, line: int, name: str) -> None:
    if not permissions.code_allowed() and not _ships(path):
        raise InputError(
            "a task file that runs Python code",
            path=path,
            line=line,
            key=f"!function {name}",
            remedy=permissions.REMEDY,
        )


def _check_metric(name: str) -> None:
    if not permissions.code_allowed():
        raise InputError(
            f"the metric {name!r} is none of lm-eval's: `evaluate` would run a script of that name",
            remedy=permissions.REMEDY,
        )


def _check_tree(node: yaml.Node, path: Path) -> None:
    if _ships(path):
        return
    inspect_node(node, path)
    for value in _files_in(node, reads=False):
        # Relative names are taken from the folder of the task file.
        problem = permissions.outside(path.parent / Path(value.value).expanduser(), path)
        if problem is not None:
            line = value.start_mark.line + 1
            raise InputError(
                problem, path=path, line=line, remedy="Name a file of this repository."
            )


def _files_in(node: Any, *, reads: bool) -> Iterator[yaml.ScalarNode]:
    """The texts of the tree that name files."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _files_in(value, reads=reads or key.value in _READS)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _files_in(value, reads=reads)
    elif reads:
        yield node


def _ships(path: Path) -> bool:
    """Whether a file is one of lm-eval's own, or of ours."""
    folders = (lm_eval.task_folder(), SHIPPED)
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)
