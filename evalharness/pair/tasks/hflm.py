"""lm-eval's own Hugging Face model, which scores request by request.

Scores are lm-eval's to the last digit for the same task and batch size. They are not independent of
the batch: in bfloat16 a log-likelihood was seen to move by up to 0.47 nats with the shape of its
batch, which is why both sides get the same requests in batches of the same fixed size, cut to the
same length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evalharness.compat.lm_eval import context_length, model_class
from evalharness.engines.base import LoadedModel
from evalharness.errors import RunError, plural
from evalharness.pair.rows_alone import alone_because
from evalharness.pair.tasks.own_tokens import OwnTokens

_Model: Any = model_class()
_FIRST = "the token before what has no context"


class PlainLM(_Model):  # type: ignore[misc]  # lm-eval ships no types
    """lm-eval's model over a loaded one, whose weights it leaves as they are."""

    def __init__(self, loaded: LoadedModel, tokenizer: Any = None, **options: Any) -> None:
        super().__init__(loaded.model, tokenizer or loaded.tokenizer, **options)
        self._loaded = loaded
        self.own_tokens: OwnTokens | None = None  # where ``tokenizer`` is not the model's own
        self.prompts: dict[str, int] = {}  # and how many tokens each lost at its beginning

    def tok_encode(self, string: str, *args: Any, **options: Any) -> Any:
        ids = super().tok_encode(string, *args, **options)
        if self.own_tokens is not None:
            self.own_tokens.see(string, ids, *args, **options)
        return ids

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        if any(r.args[0] == "" for r in requests):
            self._see_special("prefix_token_id", _FIRST)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        self._see_special("prefix_token_id", _FIRST)
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
        self.fit(requests)
        with self._exact(max((len(c) + len(k) for _, c, k in requests), default=0)):
            return super()._loglikelihood_tokens(requests, **options)

    def generate_until(self, requests: Any, **options: Any) -> Any:
        """As lm-eval's own."""
        self._see_special("eot_token_id", "the token that ends an answer")
        prompts = (len(self.tok_encode(r.args[0])) for r in requests)
        new = (int(r.args[1].get("max_gen_toks", self.max_gen_toks)) for r in requests)
        with self._exact(max(prompts, default=0) + max(new, default=0)):
            return super().generate_until(requests, **options)

    def _see_special(self, name: str, what: str) -> None:
        if self.own_tokens is not None:
            self.own_tokens.see_special(name, what, getattr(self, name))

    @contextmanager
    def _exact(self, longest: int) -> Iterator[None]:
        """One request at a time where rows of ``longest`` tokens depend on those beside them."""
        size: Any = self.batch_size_per_gpu  # type: ignore[has-type]
        streams = getattr(self._loaded.model, "streams", False)
        if streams or alone_because(self._loaded, min(longest, self.max_length)) is not None:
            self.batch_size_per_gpu = 1
        try:
            yield
        finally:
            self.batch_size_per_gpu = size

    def fit(self, requests: Any) -> None:
        """Note what is cut of each prompt; raise `RunError` where an answer alone is too long."""
        require_fit(requests, self.max_length)
        for texts, context, answer in requests:
            if texts is not None:  # a window of a text is no prompt
                self._note(texts[0], len(context) + len(answer) - self.max_length - 1)

    def tok_batch_encode(
        self,
        strings: Any,
        padding_side: str = "left",
        left_truncate_len: Any = None,
        **options: Any,
    ) -> Any:
        ids, mask = super().tok_batch_encode(strings, padding_side=padding_side, **options)
        if not left_truncate_len:
            return ids, mask
        for text, length in zip(strings, mask.sum(dim=1).tolist(), strict=True):
            self._note(text, length - left_truncate_len)
        return ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]

    def _note(self, prompt: str, beyond: int) -> None:
        self.prompts[prompt] = max(self.prompts.get(prompt, 0), beyond, 0)


def cut_prompts(task: str, *sides: PlainLM) -> list[str]:
    """Say which side lost how much of the prompts of ``task``; empty where neither did."""
    found: dict[str, list[str]] = {}
    for lm in sides:
        lost = [n for n in lm.prompts.values() if n]
        if lost:
            text = (
                f"{len(lost):,} of {len(lm.prompts):,} prompts are longer than the "
                f"{lm.max_length:,} tokens that both models read, with room for the answer, and "
                f"lost up to {plural(max(lost), 'token')} at their beginning"
            )
            found.setdefault(text, []).append(lm._loaded.name)
    if len(found) == 1 and len(*found.values()) == len(sides):
        return [f"task {task}: {text}" for text in found]
    return [f"task {task}, {name}: {text}" for text, names in found.items() for name in names]


def require_fit(requests: Any, max_length: int) -> None:
    """Raise `RunError` where an answer alone is longer than what the models read at a time.

    A context that is too long is cut from the left, as lm-eval does.
    """
    longest = max((len(answer) for _, _, answer in requests), default=0)
    if longest > max_length:
        raise RunError(
            f"an answer of {plural(longest, 'token')} is longer than the {max_length} that both "
            "models can read. Leave the task out of the suite, or compare models with a longer "
            "context"
        )


def common_max_length(reference: LoadedModel, candidate: LoadedModel) -> int:
    """Tokens that both sides can take: the smaller of the two models' maxima (lm-eval's rule)."""
    return min(context_length(s.model.config, s.tokenizer) for s in (reference, candidate))
