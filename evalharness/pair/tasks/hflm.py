"""lm-eval's own Hugging Face model, which scores request by request.

Scores are lm-eval's to the last digit for the same task and batch size. They are not independent of
the batch: in bfloat16 a log-likelihood was seen to move by up to 0.47 nats with the shape of its
batch, which is why both sides get the same requests in batches of the same fixed size, cut to the
same length.
"""

from __future__ import annotations

from typing import Any

from evalharness.compat.lm_eval import context_length, model_class
from evalharness.engines.base import LoadedModel
from evalharness.errors import RunError

_Model: Any = model_class()


class PlainLM(_Model):  # type: ignore[misc]  # lm-eval ships no types
    """lm-eval's model over a loaded one, whose weights it leaves as they are."""

    def __init__(self, loaded: LoadedModel, **options: Any) -> None:
        super().__init__(loaded.model, loaded.tokenizer, **options)

    def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
        require_fit(requests, self.max_length)
        return super()._loglikelihood_tokens(requests, **options)


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
    return min(context_length(s.model.config, s.tokenizer) for s in (reference, candidate))
