"""The tokenizer whose chat template a suite's tasks are asked in; found before any weights are."""

from __future__ import annotations

from typing import Any

from evalharness.compat.silence import quiet
from evalharness.engines.locate import resolve_tokenizer
from evalharness.engines.registry import find_model
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Suite
from evalharness.spec.yamlfile import YamlFile

_REMEDY = (
    "Name a tokenizer that has one with model.tokenizer in the model file, or ask without it "
    "(apply_chat_template: false)."
)


def tokenizer_of_tasks(reference: ModelSpec, suite: Suite, file: YamlFile) -> Any:
    """The reference's tokenizer where a task wants a chat template; None: none does.

    Raises
    ------
    InputError : it has no such template, or none can be had before the model is loaded.

    """
    asked = [(n, task) for n, task in enumerate(suite.tasks) if task.template is not None]
    if not asked:
        return None
    found = find_model(reference)
    source = reference.model
    if found.kind == "engine" and source.tokenizer is None:
        raise file.error(
            f"the tokenizer of {reference.name} is known to the engine {source.engine!r} alone",
            ("tasks", asked[0][0], "apply_chat_template"),
            "Name one whose chat template is to be used with model.tokenizer in the model file.",
        )
    with quiet():
        from evalharness.data.chat_templates import wrong_template
        from evalharness.engines.transformers import load_tokenizer

        tokenizer = load_tokenizer(reference, found)
    for number, task in asked:
        if (wrong := wrong_template(task, tokenizer)) is not None:
            place = resolve_tokenizer(source, found)
            raise file.error(
                f"the tokenizer of {reference.name} in {place} {wrong}",
                ("tasks", number, "apply_chat_template"),
                _REMEDY,
            )
    return tokenizer
