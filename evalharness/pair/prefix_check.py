"""Where packing requests is exact, and where it is not.

Known not to be: attention that needs its own mask or position scheme (sliding windows shorter than a
request, ALiBi, kernels that take no mask), state carried from token to token (recurrent and
state-space models), encoder–decoder models. Whatever is not known is tried: a probe of a prefix and
branches is scored packed and one request at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalharness.pair.prefix import Batch, PackedSide
from evalharness.pair.trie import Document, Group, pack

TOLERANCE = 1e-3  # nats a request of ten tokens, in float32
# In 16 bits rounding moves logits by more than that; a leak between branches moves them far more.
LEAK_SHARE = 0.25

_ALIBI = {"bloom", "mpt"}
_PREFIX, _OWN = 20, 6  # tokens of the probe


def unsupported(side: PackedSide, longest: int) -> str | None:
    """Why requests of up to ``longest`` tokens cannot be packed for this model; None: they can.

    Only what the model's configuration says; `probe` tries the rest.
    """
    model = side.side.model
    config = model.config.get_text_config()
    kind = type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        return f"{kind} is an encoder–decoder model"
    if getattr(model, "_is_stateful", False):
        return f"{kind} carries a state from token to token"
    if config.model_type in _ALIBI or getattr(config, "alibi", False):
        return f"{kind} takes positions from ALiBi, which a packed mask does not carry"
    attention = getattr(config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"{attention} attention takes no mask of one's own; use sdpa"
    window = _window(config)
    if window is not None and longest > window:
        return f"{kind} attends to {window} tokens and a request has {longest}"
    layers = set(getattr(config, "layer_types", None) or ())
    other = layers - {"full_attention", "sliding_attention", "chunked_attention"}
    return f"{kind} has layers of type {', '.join(sorted(other))}" if other else None


def _window(config: Any) -> int | None:
    """Tokens that the narrowest attention of the model reaches back; None: all."""
    layers = getattr(config, "layer_types", None)
    sizes = [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    if layers is not None and set(layers) == {"full_attention"}:
        return None
    known = [int(s) for s in sizes if isinstance(s, int)]
    return min(known) if known else None


@torch.inference_mode()
def probe(side: PackedSide) -> str | None:
    """Score a probe packed and request by request; why they disagree, or None."""
    random = np.random.default_rng(0)
    ids = random.integers(5, max(6, side.side.vocab_size - 5), (8, 10)).tolist()
    shared = [*ids[0], *ids[1]]
    requests = [([*shared, *ids[2][:_OWN]], [ids[3][0], *ids[i]]) for i in (4, 5)]
    requests += [([*shared, *ids[6][:_OWN]], ids[7])]
    kind = type(side.side.model).__name__
    try:
        (group,) = _group(requests)
        side.begin(group)
        batch = Batch(group.documents, len(group.prefix))
        packed = _logits(side, batch)
        alone = _alone(side, group)
        worst = max(
            abs(_score(packed, b.reads_of(r)) - _score(alone, b.reads_of(r)))
            for b, r in ((batch, r) for r, _, _ in batch.reads)
        )
        if packed.dtype == torch.float32 and worst <= TOLERANCE:
            return None
        leaky = Batch(group.documents, len(group.prefix))
        leaky.allowed |= torch.ones_like(leaky.allowed[0, 0]).tril(len(group.prefix))
        leak = float((_logits(side, leaky) - alone).square().mean().sqrt())
        error = float((packed - alone).square().mean().sqrt())
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError) as error_raised:
        return f"{kind} does not take packed requests ({type(error_raised).__name__})"
    finally:
        side.end()
    if not error <= LEAK_SHARE * leak or packed.dtype == torch.float32:
        return f"{kind} scores a packed probe differently, by {worst:.2g} nats"
    return None
