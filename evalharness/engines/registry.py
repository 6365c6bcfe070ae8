"""Engines by name: a module of this folder that has one, or what another package offers."""

from __future__ import annotations

import functools
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from evalharness import engines
from evalharness.engines.adapter_base import check_base
from evalharness.engines.base import Engine
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import resolve_spec
from evalharness.errors import EvalHarnessError, InputError, nearest
from evalharness.spec.model import ModelSpec, check_permitted
from evalharness.spec.plugins import names, offered, refusal

_NAME = re.compile(r'^NAME = "([^"]+)"$', re.MULTILINE)


def engine_named(name: str) -> Engine:
    """Return the engine that a model file names with ``model.engine``.

    Raises
    ------
    InputError
        There is none of that name, or the package that offers it cannot be loaded.

    """
    own = own_engines()
    if name in own:
        module: Any = import_module(f"{engines.__name__}.{own[name]}")
        engine: Engine = module
        return engine
    for known, engine in offered("engines", Engine):  # type: ignore[type-abstract]
        if known == name:
            return engine
    every = [*own, *names("engines")]
    hint = nearest(name, every) or f"known: {', '.join(every)}."
    raise InputError(
        f"unknown engine {name!r}",
        key="model.engine",
        remedy=hint[:1].upper() + hint[1:] + refusal("engines"),
    )


def find_model(spec: ModelSpec, file: str | Path | None = None) -> Resolved:
    """Check everything ``spec`` points at, by the rules of its engine; nothing is loaded.

    Parameters
    ----------
    spec : one side of a pair.
    file : where it was read from, which errors then name.

    Raises
    ------
    InputError
        There is no such engine, or no such model, tokenizer or adapter; or it asks for code to be
        run that the user has not allowed.

    """
    try:
        check_permitted(spec)
        return _located(spec)
    except InputError as error:
        if file is None or error.path is not None:
            raise
        raise InputError(error.message, path=file, key=error.key, remedy=error.remedy) from error


def _located(spec: ModelSpec) -> Resolved:
    name = spec.model.engine
    found: Resolved
    if name == "transformers":
        _refuse_options(spec)
        found = resolve_spec(spec)  # without importing the engine, and torch with it
        if spec.adapter is not None and Path(spec.adapter).is_dir():
            check_base(Path(spec.adapter), spec, found)
        return found
    locate = getattr(engine_named(name), "locate", resolve_spec)
    try:
        found = locate(spec)
    except EvalHarnessError:
        raise
    except Exception as error:  # whatever the package raises
        raise InputError(
            f"the engine {name!r} cannot find {spec.model.path!r} "
            f"({type(error).__name__}: {error})",
            key="model.path",
        ) from error
    return found


def runs_apart(spec: ModelSpec) -> bool:
    """Whether the model runs in a process of its own, so that none of its modules is at hand."""
    return spec.model.engine in own_engines() and spec.model.engine != "transformers"


def _refuse_options(spec: ModelSpec) -> None:
    """Raise `InputError` for keys that transformers, in this process, has no use for."""
    others = ", ".join(name for name in own_engines() if name != "transformers")
    for key in ("python", "chunk", "options", "base_url"):
        if getattr(spec.model, key):
            raise InputError(
                "is for engines outside this process, and this is transformers",
                key=f"model.{key}",
                remedy=f"Leave it out, or name an engine: {others}.",
            )


@functools.cache
def own_engines() -> dict[str, str]:
    """Modules of this folder by the engine's name, read from the files: none is imported."""
    return {
        found[1]: path.stem
        for folder in engines.__path__
        for path in sorted(Path(folder).glob("*.py"))
        if (found := _NAME.search(path.read_text(encoding="utf-8")))
    }
