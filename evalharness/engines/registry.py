"""Engines by name: a module of this folder that has one, or what another package offers."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from evalharness import engines
from evalharness.engines.base import Engine
from evalharness.errors import InputError, nearest
from evalharness.spec.plugins import built_in, names, offered, refusal

FOLDER = engines.__name__


def engine_named(name: str) -> Engine:
    """Return the engine that a model file names with ``model.engine``.

    Raises
    ------
    InputError : there is none of that name, or the package that offers it cannot be loaded.

    """
    module = f"{FOLDER}.{name.replace('.', '_').replace('-', '_')}"
    own = import_module(module) if name.isidentifier() and find_spec(module) else None
    if own is not None and getattr(own, "NAME", None) == name and isinstance(own, Engine):
        return own
    for known, engine in offered("engines", Engine):  # type: ignore[type-abstract]
        if known == name:
            return engine
    known_names = [m.NAME for m in built_in(engines) if hasattr(m, "NAME")] + names("engines")
    hint = nearest(name, known_names) or f"known: {', '.join(known_names)}"
    raise InputError(
        f"unknown engine {name!r}", key="model.engine", remedy=hint + refusal("engines")
    )
