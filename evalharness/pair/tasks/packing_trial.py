"""Where packing requests is exact, and where it is not.

Known not to be: attention that needs its own mask or position scheme (sliding windows shorter than
a request, ALiBi, kernels that take no mask), state carried from token to token (recurrent and
state-space models), encoder–decoder models. What is not known is tried: a probe with a shared
prefix and branches is scored packed, and again one request at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evalharness.compat.transformers import attention_of
from evalharness.compat.transformers_kinds import (
    attention_reach,
    carries_state,
    has_alibi,
    is_encoder_decoder,
    possible_windows,
)
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.pair.tasks.packed_pass import Batch, Key, PackedSide
from evalharness.pair.tasks.trie import pack

TOLERANCE = 1e-3  # nats a request, in float32
# In 16 bits rounding alone moves more than that. Letting the branches see each other moves logits
# far more still: the packed form may be off by this share of what such a leak does.
LEAK_SHARE = 0.25
SHORT = 16  # tokens of the first probe's longest request: it costs time in every run


def unsupported(side: PackedSide) -> str | None:
    """Why requests cannot be packed for this model, whatever their length; None: they can."""
    model = side.side.model
    kind = type(model).__name__
    if side.side.streams:
        return None  # fed as plain sequences
    if is_encoder_decoder(model):
        return f"{kind} is an encoder–decoder model"
    if carries_state(model):
        return f"{kind} carries a state from token to token"
    if has_alibi(model):
        return f"{kind} takes positions from ALiBi, which a packed mask does not carry"
    attention = attention_of(model)
    if attention not in ("sdpa", "eager"):
        return f"{attention} attention takes no packed mask (sdpa does)"
    return probe(side)


def reached(side: PackedSide, longest: int) -> int | None:
    """Tokens beyond which requests of up to ``longest`` are not exact when packed; None: all are.

    Attention may be local by a key that nobody has listed. Requests longer than any number of the
    configuration that may be its window are tried.
    """
    if side.side.streams:
        return None
    known = attention_reach(side.side.model)
    within = [w for w in possible_windows(side.side.model) if w < min(longest, known or longest)]
    if within and probe(side, min(longest, 2 * max(within))) is not None:
        return min(within)
    return known


@torch.inference_mode()
def probe(side: PackedSide, tokens: int = SHORT) -> str | None:
    """Score a probe packed and request by request; returns why it may not be packed, or None.

    ``tokens`` : in its longest request, at least 16.
    """
    kind, full = type(side.side.model).__name__, side.dtype == torch.float32
    requests = _requests(side.side.vocab_size, tokens)
    try:
        alone = _alone(side, requests)
        packed, *leaky = _packed(side, requests, (False,) if full else (False, True))
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError) as raised:
        if is_out_of_memory(raised):
            raise
        return f"{kind} does not take packed requests ({type(raised).__name__})"
    finally:
        side.end()
    if not all(bool(z.isfinite().all()) for z in (*alone, *packed)):
        return f"{kind} gives NaN or infinite logits on a probe"
    worst = max(
        abs(_log_likelihood(a, r) - _log_likelihood(b, r))
        for a, b, r in zip(alone, packed, requests, strict=True)
    )
    if full:
        exact = worst <= TOLERANCE
    else:
        exact = _distance(packed, alone) <= LEAK_SHARE * _distance(leaky[0], alone)
    return None if exact else f"{kind} scores a packed probe differently, by {worst:.2g} nats"


def _requests(vocabulary: int, tokens: int) -> list[Key]:
    """Two contexts on one prefix, each with two continuations that share their first token."""
    random = np.random.default_rng(0)

    def draw(count: int) -> list[int]:
        return [int(i) for i in random.integers(0, vocabulary, count)]

    prefix, found = draw(tokens - 8), []
    for _ in range(2):
        context, first = prefix + draw(3), draw(1)
        found += [(context, first + draw(3)), (context, first + draw(4))]
    return [(tuple(c), tuple(k)) for c, k in found]


def _alone(side: PackedSide, requests: list[Key]) -> list[Tensor]:
    """Logits (tokens, V) that predict each continuation, by the model's own plain forward.

    A row a request, padded on the right, as lm-eval's HFLM batches them.
    """
    fed = [torch.tensor([*context, *continuation[:-1]]) for context, continuation in requests]
    ids = torch.nn.utils.rnn.pad_sequence(fed, batch_first=True).to(side.device)
    hidden = side.side.hidden(ids)
    return [
        side.side.logits(h[len(context) - 1 : len(context) + len(continuation) - 1]).float()
        for h, (context, continuation) in zip(hidden, requests, strict=True)
    ]


def _packed(side: PackedSide, requests: list[Key], leaks: tuple[bool, ...]) -> list[list[Tensor]]:
    """The same logits from the packed form; of a leak: with branches that see each other."""
    (group,) = pack(requests, 10**6, min_prefix=1, min_saved=1)
    side.begin(group)
    batch = Batch(group.documents, len(group.prefix))
    width = batch.allowed.shape[-2]
    places = {request: at for request, at, _ in batch.reads}
    found = []
    for leak in leaks:
        if leak:
            batch.allowed[..., -width:] |= torch.ones(width, width, dtype=torch.bool).tril()
        logits = side.side.logits(side.hidden(batch)).float()
        found.append([logits[places[i]] for i in range(len(requests))])
    return found


def _log_likelihood(logits: Tensor, request: Key) -> float:
    target = torch.tensor(request[1], device=logits.device)[:, None]
    return float(logits.log_softmax(-1).gather(1, target).double().sum())


def _distance(a: list[Tensor], b: list[Tensor]) -> float:
    return float((torch.cat(a) - torch.cat(b)).square().mean().sqrt())
