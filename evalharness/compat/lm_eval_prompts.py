"""How lm-eval makes a task's requests: few-shot examples, system message, chat template.

What each item relies on, `tests/compat/test_lm_eval_prompts.py` holds against the version that is
installed.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def build_requests(
    task: Any,
    samples: Sequence[int] | None,
    *,
    chat: Chat | None = None,
    system: str | None = None,
    multiturn: bool = False,
) -> list[Any]:
    """Build a task's requests, once: both models get these very ones, few-shot draws and all.

    Parameters
    ----------
    samples : ids of documents in ascending order; None: all documents.
    chat : the chat template that prompts are put in.
    system : the system message; without a template it is text before all else.
    multiturn : whether few-shot examples are turns of the conversation.

    """
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
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
    return requests
