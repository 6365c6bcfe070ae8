"""Where lm-eval would run code that a task's file or its folder holds, and how that is prevented.

``!function`` imports a Python file beside the YAML; templates are Jinja without a sandbox; a metric
that lm-eval does not have is looked up by ``evaluate``, which runs a script of that name, one in
the working directory first. `tests/compat/test_lm_eval_code.py` holds this against the version
that is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import yaml

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def guard(
    check_function: Callable[[Path, int, str], None],
    check_metric: Callable[[str], None],
    check_tree: Callable[[yaml.Node, Path], None],
    *,
    sandbox: bool,
) -> None:
    """Have lm-eval ask before it runs anything; a later call replaces an earlier one.

    Parameters
    ----------
    check_function : of a YAML file, a line and what ``!function`` names there; raises to refuse it.
    check_metric : of a metric that ``evaluate`` would load; raises to refuse it.
    check_tree : of each YAML file that lm-eval reads, before anything is made of it.
    sandbox : whether templates are rendered in Jinja's immutable sandbox.

    """
    import lm_eval.api.metrics  # noqa: F401 (fills the registry, which says what is known)
    from lm_eval import utils
    from lm_eval.api import registry
    from lm_eval.api import task as task_module
    from lm_eval.tasks import _yaml_loader

    _yaml_loader._make_loader = _loader_factory(
        _yaml_loader._mk_function_ctor, check_function, check_tree
    )
    utils.env = _environment(utils, sandbox)
    get_metric = getattr(registry.get_metric, "unguarded", registry.get_metric)

    def checked(name: str, hf_evaluate_metric: bool = False) -> Any:
        if hf_evaluate_metric or name not in registry.metric_registry:
            check_metric(name)
        return get_metric(name, hf_evaluate_metric)

    checked.unguarded = get_metric  # type: ignore[attr-defined]
    registry.get_metric = task_module.get_metric = checked
    _after_import_of_evaluate(check_metric)


def refused_by_sandbox(error: BaseException) -> bool:
    """Whether ``error`` says that a template wanted what the sandbox does not give."""
    return type(error).__name__ == "SecurityError" and "jinja2" in type(error).__module__


def _loader_factory(
    constructor: Callable[[Path, bool], Callable[..., Any]],
    check_function: Callable[[Path, int, str], None],
    check_tree: Callable[[yaml.Node, Path], None],
) -> Callable[..., Any]:
    def make(base_dir: Path, *, resolve_funcs: bool) -> Any:
        original = constructor(base_dir, resolve_funcs)

        class Loader(_BASE):  # type: ignore[misc]
            def construct_document(self, node: yaml.Node) -> Any:
                check_tree(node, Path(node.start_mark.name))
                return super().construct_document(node)

        def function(loader: Any, node: Any) -> Any:
            if resolve_funcs:
                mark = node.start_mark
                check_function(Path(mark.name), mark.line + 1, str(node.value))
            return original(loader, node)

        yaml.add_constructor("!function", function, Loader=Loader)
        return Loader

    return make


def _environment(utils: Any, sandbox: bool) -> Any:
    """lm-eval's environment of templates, as it is or in a sandbox."""
    from jinja2 import BaseLoader, Environment, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    kind = ImmutableSandboxedEnvironment if sandbox else Environment
    env = kind(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    env.filters["regex_replace"] = utils.regex_replace
    return env


def _after_import_of_evaluate(check: Callable[[str], None]) -> None:
    """Guard `evaluate.load` once something imports it: that alone takes seconds."""
    if "evaluate" in sys.modules:
        _guard_evaluate(sys.modules["evaluate"], check)
        return
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _Watcher)]
    sys.meta_path.insert(0, _Watcher(check))


def _guard_evaluate(module: Any, check: Callable[[str], None]) -> None:
    original = getattr(module.load, "unguarded", module.load)

    def load(path: str, *args: Any, **options: Any) -> Any:
        check(path)
        return original(path, *args, **options)

    load.unguarded = original  # type: ignore[attr-defined]
    module.load = load


class _Watcher(MetaPathFinder):
    """Finds ``evaluate`` as Python does, and guards it when it has been imported."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def find_spec(self, name: str, *_: Any) -> Any:
        """The module's spec with a loader that guards it; None for any other module."""
        if name != "evaluate":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_guard(module: Any) -> None:
                run(module)
                _guard_evaluate(module, self._check)

            spec.loader.exec_module = run_and_guard  # type: ignore[method-assign]
        return spec
