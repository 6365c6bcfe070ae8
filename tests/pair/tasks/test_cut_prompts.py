"""Prompts that are longer than the models' context: how many, and how much of them is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.pair.tasks import packed_lm
from tests.pair.tasks.lm_sides import prepare, run, side

CONTEXT = 80


@pytest.fixture
def short(tiny: Callable[..., Path]) -> list[Any]:
    """Two sides of a short context."""
    return [side(tiny, seed, max_position_embeddings=CONTEXT) for seed in (0, 1)]


def lost(loaded: Any, name: str, answer: int | None = None) -> list[int]:
    """Tokens of each prompt beyond the context, counted apart from lm-eval."""
    beyond: dict[str, int] = {}
    for request in prepare(name).tasks[0].task.instances:
        prompt, more = request.args
        if answer is None:
            # all but the last token are fed
            fed = len(loaded.tokenizer(prompt + more)["input_ids"]) - 1
        else:
            fed = len(loaded.tokenizer(prompt)["input_ids"]) + answer
        beyond[prompt] = max(beyond.get(prompt, 0), fed - CONTEXT)
    return [n for n in beyond.values() if n > 0]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("name", "answer"), [("choose", None), ("write", 8)])
def test_what_is_cut_of_prompts_is_said(
    short: list[Any],
    name: str,
    answer: int | None,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of prompts, not of requests; the same packed and request by request, and when generating."""
    if not packed:
        monkeypatch.setattr(packed_lm, "unsupported", lambda side: "says the test")
    (task,) = run(*short, f"{name}.yaml")
    expected = lost(short[0], f"{name}.yaml", answer)
    assert 0 < len(expected) < 5
    assert task.notes[-1] == (
        f"task {name}: {len(expected)} of 5 prompts are longer than the {CONTEXT} tokens that both "
        f"models read, with room for the answer, and lost up to {max(expected)} tokens at their "
        "beginning"
    )


def test_prompts_that_fit_are_not_spoken_of(pair: tuple[Any, Any]) -> None:
    """Nor windows of a text, which cover all of it."""
    assert [t.notes for t in run(*pair, "choose.yaml", "read.yaml")] == [(), ()]


def test_a_text_in_windows_loses_nothing(short: list[Any]) -> None:
    """Its windows are cut to the context on purpose."""
    (task,) = run(*short, "read.yaml")
    assert task.notes == ()
