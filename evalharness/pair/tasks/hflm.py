"""lm-eval's own Hugging Face model around a model that is already loaded.

Why a subclass: ``HFLM.__init__`` calls ``model.tie_weights()``, which silently replaces a quantised
``lm_head`` by the embedding wherever the configuration says the two are tied. The candidate that is
then scored is not the candidate that was loaded.

Scores are lm-eval's to the last digit for the same task and batch size. They are not independent of
the batch: in bfloat16 a log-likelihood was seen to move by up to 0.47 nats with the shape of its
batch, which is why both sides get the same requests in batches of the same fixed size, cut to the
same length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import resolve_max_length
from transformers import LogitsProcessor, LogitsProcessorList

from evalharness.engines.base import LoadedModel
from evalharness.errors import RunError

Answered = Callable[[int], None]  # told how many more requests are answered


class LoadedLM(HFLM):  # type: ignore[misc]  # lm-eval ships no types
    """``HFLM`` over a loaded model, whose weights it leaves as they are."""

    def __init__(
        self, loaded: LoadedModel, *, batch_size: int, max_length: int, answered: Answered
    ) -> None:
        model: Any = loaded.model
        # Shadows the method on this one object for the time of the constructor.
        model.tie_weights = lambda *_, **__: None
        try:
            super().__init__(
                pretrained=model,
                tokenizer=loaded.tokenizer,
                batch_size=batch_size,
                max_length=max_length,
            )
        finally:
            del model.tie_weights
        self.cache_hook = _Counter(answered)
        self.nonfinite_generations = 0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
        require_fit(requests, self.max_length)
        # The rolling form calls with tqdm on, whatever it was told.
        return super()._loglikelihood_tokens(requests, **(options | {"disable_tqdm": True}))

    def _model_generate(self, context: Any, max_length: int, stop: Any, **options: Any) -> Any:
        # A broken model still generates: the argmax of NaN is some token. Look at the logits.
        check = _FiniteLogits()
        processors = LogitsProcessorList([check])
        out = super()._model_generate(
            context, max_length, stop, logits_processor=processors, **options
        )
        if check.bad is not None:
            self.nonfinite_generations += int(check.bad.sum())
        return out


class _Counter:
    """Stands in for lm-eval's cache hook, which is told of every request once it is answered."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Count one answered request."""
        self._answered(1)


class _FiniteLogits(LogitsProcessor):  # type: ignore[misc]  # a lazy export without types
    """Changes nothing; remembers the rows whose logits were NaN or +Inf at any step."""

    def __init__(self) -> None:
        self.bad: torch.Tensor | None = None  # (B,)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        top = scores.max(dim=-1).values  # NaN wins a maximum; -inf alone may be a masked token
        bad = ~torch.isfinite(top)
        self.bad = bad if self.bad is None else self.bad | bad
        return scores


def require_fit(requests: Any, max_length: int) -> None:
    """Raise `RunError` where an answer alone is longer than what the models read at a time.

    A context that is too long is cut from the left, as lm-eval does.
    """
    longest = max((len(answer) for _, _, answer in requests), default=0)
    if longest > max_length:
        raise RunError(
            f"an answer of {longest} tokens is longer than the {max_length} that both models can "
            "read. Leave the task out of the suite, or compare models with a longer context"
        )


def common_max_length(reference: LoadedModel, candidate: LoadedModel) -> int:
    """Tokens that both sides can take: the smaller of the two models' maxima (lm-eval's rule)."""
    return min(
        int(resolve_max_length(side.model.config, side.tokenizer, default=HFLM._DEFAULT_MAX_LENGTH))
        for side in (reference, candidate)
    )
