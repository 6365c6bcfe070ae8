"""How lm-eval makes a task's requests: few-shot examples, system message, chat template.

What each item relies on, `tests/compat/test_lm_eval_prompts.py` holds against the version that is
installed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

# lm-eval's own default: the few-shot examples are those that its command draws.
FEWSHOT_SEED = 1234


@dataclass
class Chat:
    """A tokenizer's chat template, applied by the code of lm-eval's Hugging Face model.

    lm-eval 0.4.13 takes the name of a template and renders the default one all the same; here the
    one that is named is rendered, as ``chat_template_args`` of its model would have it.
    """

    tokenizer: Any = field(repr=False)
    name: str | None  # of one of several templates; None: the tokenizer has but one
    left_out: set[str] = field(default_factory=set)  # system messages that are in no prompt

    def __call__(self, history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation; a template that takes no system message gets none."""
        from lm_eval.models.huggingface import HFLM

        named = {} if self.name is None else {"chat_template": self.name}
        lm: Any = SimpleNamespace(tokenizer=self.tokenizer, chat_template_args=named)
        text = str(HFLM.apply_chat_template(lm, history, add_generation_prompt))
        for message in history:
            if message["role"] == "system" and message["content"].strip() not in text:
                self.left_out.add(message["content"].strip())
        return text


@dataclass(frozen=True)
class Built:
    """The requests of a task, and what is to be known of its items."""

    requests: list[Any]
    shown: tuple[int, ...]  # documents that are among their own few-shot examples
    repeats: dict[int, int]  # documents that ask what an earlier one asks, and which one


def build_requests(
    task: Any,
    samples: Sequence[int] | None,
    *,
    chat: Chat | None = None,
    system: str | None = None,
    multiturn: bool = False,
) -> Built:
    """Build a task's requests, once: both models get these very ones, few-shot draws and all.

    Parameters
    ----------
    samples : ids of documents in ascending order; None: all documents.
    chat : the chat template that prompts are put in.
    system : the system message; without a template it is text before all else.
    multiturn : whether few-shot examples are turns of the conversation.

    """
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    items: list[_Item] = []
    with _watched(task, items):
        task.build_all_requests(
            limit=None,
            samples=None if samples is None else list(samples),
            rank=0,
            world_size=1,
            system_instruction=system,
            apply_chat_template=chat is not None,
            fewshot_as_multiturn=multiturn,
            chat_template=chat,
        )
    task.build_all_requests = lambda **_: None  # the evaluator would build them again
    requests: list[Any] = task.instances
    return Built(
        requests,
        tuple(_id(samples, n) for n, item in enumerate(items) if item.shown),
        _repeats(requests, items, samples),
    )


def _id(samples: Sequence[int] | None, place: int) -> int:
    return place if samples is None else samples[place]


class _Item:
    """One document as lm-eval makes its prompt: the turns of its examples, then its own."""

    def __init__(self) -> None:
        self._examples: list[tuple[Any, Any]] = []  # question and choices
        self._own: list[tuple[Any, Any, Any]] = []  # and the beginning of the answer

    def turn(self, parts: dict[str, Any]) -> None:
        """Note one turn: of an example, with its answer, or of the document."""
        question, choices = parts.get("q"), parts.get("c")
        if parts.get("a") is None:
            self._own.append((question, choices, parts.get("gen_prefix")))
        else:
            self._examples.append((question, choices))

    @property
    def shown(self) -> bool:
        """Whether an example asks the same, of the same choices."""
        own = [(question, choices) for question, choices, _ in self._own]
        return any((q or c) and (q, c) in own for q, c in self._examples)

    @property
    def key(self) -> str | None:
        """What the document asks, whatever its examples; None: nothing without them."""
        asked = any(question or choices for question, choices, _ in self._own)
        return repr(self._own) if asked and self._examples else None


@contextmanager
def _watched(task: Any, items: list[_Item]) -> Iterator[None]:
    """Note what the prompts of ``task`` are made of, where it makes them as tasks in YAML do."""
    make, turn = getattr(task, "fewshot_context", None), getattr(task, "build_qa_turn", None)
    if make is None or turn is None:
        yield
        return

    def watched_make(*args: Any, **options: Any) -> Any:
        items.append(_Item())
        return make(*args, **options)

    def watched_turn(**parts: Any) -> Any:
        if items:
            items[-1].turn(parts)
        return turn(**parts)

    task.fewshot_context, task.build_qa_turn = watched_make, watched_turn
    try:
        yield
    finally:
        del task.fewshot_context, task.build_qa_turn


def _repeats(
    requests: Sequence[Any], items: Sequence[_Item], samples: Sequence[int] | None
) -> dict[int, int]:
    """By document the first one that asks the same; without examples that is the same requests."""
    asked: dict[int, list[Any]] = {}
    for request in requests:
        asked.setdefault(request.doc_id, []).append(request.args)
    first: dict[bytes, int] = {}
    found = {}
    for place, (number, made) in enumerate(asked.items()):
        text = (items[place].key if place < len(items) else None) or repr(made)
        known = first.setdefault(hashlib.sha256(text.encode()).digest(), number)
        if known != number:
            found[_id(samples, number)] = _id(samples, known)
    return found
