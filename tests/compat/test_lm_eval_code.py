"""What lm-eval would run, held against the version that is installed."""

from __future__ import annotations

import inspect

from lm_eval import utils
from lm_eval.api import registry
from lm_eval.api import task as task_module
from lm_eval.tasks import _index, _yaml_loader


def test_every_yaml_file_of_a_task_is_read_by_the_guarded_loader() -> None:
    """By one function, which asks one factory for its loader."""
    source = inspect.getsource(_yaml_loader.load_yaml)
    assert "_make_loader(path.parent, resolve_funcs=resolve_func)" in source
    assert source.count("yaml.load") == 1
    assert _index.load_yaml is _yaml_loader.load_yaml


def test_templates_are_rendered_by_the_environment_of_the_module() -> None:
    """So that replacing it is enough."""
    assert "env.from_string(template)" in inspect.getsource(utils.apply_template)
    assert "regex_replace" in utils.env.filters


def test_metrics_are_asked_for_by_one_name() -> None:
    """That the task's module imports."""
    assert task_module.get_metric is registry.get_metric
    unguarded = getattr(registry.get_metric, "unguarded", registry.get_metric)
    assert "hf_evaluate.load(name)" in inspect.getsource(unguarded)
