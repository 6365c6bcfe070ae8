"""evalharness: paired evaluation and regression gates for compressed language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalharness.version import __version__

if TYPE_CHECKING:
    from evalharness.api import LoadedRun, check, compare, load_run
    from evalharness.run.environment import configure

__all__ = ["LoadedRun", "__version__", "check", "compare", "configure", "load_run"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `evalharness --help` and the pytest plugin start without pandas and scipy.
    if name in ("LoadedRun", "check", "compare", "load_run"):
        from evalharness import api

        return getattr(api, name)
    if name == "configure":
        from evalharness.run.environment import configure

        return configure
    raise AttributeError(f"module 'evalharness' has no attribute {name!r}")
