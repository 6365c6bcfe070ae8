"""The chat templates of a tokenizer, and what a task's prompts are put in."""

from __future__ import annotations

from typing import Any

from evalharness.compat.lm_eval_prompts import Chat
from evalharness.spec.suite import DEFAULT_TEMPLATE, Task


def templates_of(tokenizer: Any) -> dict[str, str]:
    """The chat templates of ``tokenizer`` by name; a single one is called default."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        return {str(name): str(text) for name, text in found.items()}
    return {} if found is None else {DEFAULT_TEMPLATE: str(found)}


def wrong_template(task: Task, tokenizer: Any) -> str | None:
    """Why the tokenizer does not have the template that ``task`` asks for; None: it has it."""
    known = templates_of(tokenizer)
    if task.template is None or task.template in known:
        return None
    if not known:
        return "has no chat template"
    names = ", ".join(map(repr, sorted(known)))
    return f"has no chat template called {task.template!r} (it has {names})"


def chat_of(task: Task, tokenizer: Any) -> Chat | None:
    """What puts the prompts of ``task`` in its template; None: it asks for none."""
    if task.template is None:
        return None
    several = isinstance(getattr(tokenizer, "chat_template", None), dict)
    return Chat(tokenizer, task.template if several else None)
