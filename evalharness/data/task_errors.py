"""What went wrong while lm-eval built a task, in one sentence for the user."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from evalharness.compat import lm_eval, lm_eval_code
from evalharness.errors import InputError
from evalharness.spec import permissions


def explain(error: Exception, name: str, path: str | None, key: str) -> InputError:
    """Return the `InputError` for what lm-eval, datasets or YAML raised about task ``name``.

    ``name`` is empty for a file whose name key was not read yet.
    """
    what = f"task {name!r}" if name else "this task"
    chain = list(_chain(error))
    for e in chain:
        if isinstance(e, yaml.MarkedYAMLError):
            line = None if e.problem_mark is None else e.problem_mark.line + 1
            return InputError(
                f"not valid YAML ({e.problem or 'unreadable'})", path=path, line=line, key=key
            )
        if isinstance(e, ModuleNotFoundError):
            return InputError(
                f"{what} needs the Python package {e.name!r}, which is not installed",
                path=path,
                key=key,
                remedy=f"Install it (pip install {e.name}).",
            )
    for e in chain:
        if lm_eval_code.refused_by_sandbox(e):
            return InputError(
                f"a template of {what} asks for more than data ({_first(e)})",
                path=path,
                key=key,
                remedy=permissions.REMEDY,
            )
    for e in chain:
        if lm_eval.lacks_data(e):
            offline = " offline" if lm_eval.says_offline(_first(e)) else ""
            return InputError(
                f"the data of {what} is not available{offline} ({_first(e)})",
                path=path,
                key=key,
                remedy="Run once with a network (without HF_HUB_OFFLINE, HF_DATASETS_OFFLINE or "
                "--offline), or give a task YAML over local files with path:.",
            )
    unknown = lm_eval.unknown_key(error)
    if unknown is not None:
        return InputError(f"unknown key {unknown!r} in the task", path=path, key=key)
    if lm_eval.declares_nothing(error):
        return InputError("a task YAML must have a key task: or group:", path=path, key=key)
    return InputError(
        f"lm-eval could not build {what} ({type(error).__name__}: {_first(error)})",
        path=path,
        key=key,
        remedy="Check the task's YAML, its data and num_fewshot.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
