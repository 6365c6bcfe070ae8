"""Tasks in a chat template: what is refused before any weights are, and what the manifest says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import InputError
from evalharness.workflow.inputs import planned
from tests.pair.tasks.lm_sides import TASKS
from tests.workflow.jobs import job

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"


@pytest.fixture
def own(project: Path, tiny: Callable[..., Path]) -> Path:
    """The project with a reference of its own, and a task in its template."""
    shutil.copytree(tiny(), project / "weights")
    (project / "base.yaml").write_text(
        "version: 1\nname: base\nmodel: {path: ./weights, dtype: float32, device: cpu}\n"
    )
    return project


def asking(project: Path, **options: Any) -> str:
    entry = {"path": str(TASKS / "choose.yaml"), **options}
    (project / "suite.yaml").write_text(f"name: s\ntasks:\n  - {json.dumps(entry)}\n")
    return f"{project / 'suite.yaml'}:3: tasks[0].apply_chat_template: "


@pytest.mark.parametrize(
    ("templates", "asked", "said"),
    [
        (None, True, "has no chat template. Name a tokenizer that has one with model.tokenizer"),
        (TEMPLATE, "tools", "has no chat template called 'tools' (it has 'default')"),
        ({"rag": TEMPLATE, "tools": TEMPLATE}, True, "called 'default' (it has 'rag', 'tools')"),
    ],
)
def test_a_tokenizer_without_the_template_is_refused(
    own: Path, templates: Any, asked: bool | str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With suite, line and key, and the place of the tokenizer; no weights are loaded."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(own / "weights")
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(own / "weights")
    monkeypatch.setattr("evalharness.engines.loading.load", lambda *a, **k: pytest.fail("loaded"))
    place = asking(own, apply_chat_template=asked)
    with pytest.raises(InputError) as caught:
        job(own)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert text.startswith(f"{place}the tokenizer of base in {own / 'weights'} has no chat")
    assert said in text


def test_what_is_asked_is_an_input_of_the_run(own: Path) -> None:
    """In the manifest, and so in the run's identity: by task."""
    (own / "weights" / "chat_template.jinja").write_text(TEMPLATE)
    before = "{}"
    for options, said in (
        ({}, (None, None, False)),
        ({"apply_chat_template": True}, ("default", None, True)),
        (
            {"apply_chat_template": True, "system": "Be brief.", "fewshot_as_multiturn": False},
            ("default", "Be brief.", False),
        ),
    ):
        asking(own, **options)
        made = job(own)
        inputs = planned(made)
        keys = ("chat_template", "system", "fewshot_as_multiturn")
        assert inputs["task_prompts"] == {"choose": dict(zip(keys, said, strict=True))}
        assert inputs["task_data"]["choose"] not in before
        before += inputs["task_data"]["choose"]
        prompt = made.tasks.tasks[0].task.instances[0].args[0]
        assert prompt.endswith("A:[assistant]" if said[0] else "A:")
        assert prompt.startswith("[system]Be brief.[user]") == (said[1] is not None)


def test_an_engine_of_its_own_needs_a_tokenizer_that_is_named(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the engine knows cannot be asked before it has loaded the model."""
    from evalharness.engines.hub import Resolved

    found = Resolved("engine", name="somewhere")
    monkeypatch.setattr("evalharness.workflow.chat_templates.find_model", lambda spec: found)
    place = asking(own, apply_chat_template=True)
    with pytest.raises(InputError) as caught:
        job(own)
    assert str(caught.value).startswith(f"{place}the tokenizer of base is known to the engine")
