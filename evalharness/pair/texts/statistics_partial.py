"""Token statistics of a candidate that gives some log-probabilities and not the vocabulary.

With K the tokens whose log-probabilities q are known and one bin for all others, p and q become
distributions over |K| + 1 outcomes, whose

    KL = Σ_K p log(p/q) + P log(P/Q),   P = 1 − Σ_K p,  Q = 1 − Σ_K q,

is at most that over the vocabulary, whatever K is (data processing). Q is what rounding leaves of a
difference, and is taken larger by `ROUNDING`: a lower bound stays one. The loss of the true token,
the most likely token and its probability are exact. What is about the whole vocabulary (logits,
entropy, total variation, reverse KL) is not known, and is null in the records.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evalharness.errors import RunError
from evalharness.pair.texts.statistics_cpu import TOP, _groups, _largest

ROUNDING = 4e-6  # of Σ_K q: float32 log-probabilities, whose sum over a vocabulary is float32 too
_ROWS = 16
UNKNOWN = (
    "kl_reverse",
    "total_variation",
    "entropy_cand",
    "max_abs",
    "max_abs_token",
    "half_range",
)


def partial_statistics(z_ref_NV: Tensor, known_NK2: Tensor, target_N: Tensor) -> dict[str, Tensor]:
    """As `token_statistics`, of the reference's logits and the candidate's known tokens.

    Parameters
    ----------
    z_ref_NV : (N, V).
    known_NK2 : (N, K, 2), ids and log-probabilities; the true token first, −1 where there is none.
    target_N : the true next tokens.

    """
    if target_N.device.type == "mps":  # has no float64
        z_ref_NV, target_N = z_ref_NV.cpu(), target_N.cpu()
    known_NK2 = known_NK2.to(target_N.device)
    ids_NK = known_NK2[..., 0].long()
    if not torch.equal(ids_NK[:, 0], target_N):
        raise ValueError("the first known token of each position must be the true one")
    if ids_NK.numel() and int(ids_NK.max()) >= z_ref_NV.shape[1]:
        raise RunError(
            f"the candidate's server names token {int(ids_NK.max())}, and the reference's "
            f"vocabulary ends at {z_ref_NV.shape[1] - 1}: it runs another model"
        )
    rows = range(0, max(1, len(target_N)), _ROWS)
    parts = [
        _some(z_ref_NV[i : i + _ROWS], ids_NK[i : i + _ROWS], known_NK2[i : i + _ROWS, :, 1])
        for i in rows
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _some(z_NV: Tensor, ids_NK: Tensor, log_q_NK: Tensor) -> dict[str, Tensor]:
    z = z_NV.double()
    there, at = ids_NK >= 0, ids_NK.clamp_min(0)
    total = z.logsumexp(1, keepdim=True)
    log_p = (z.gather(1, at) - total).masked_fill(~there, -torch.inf)
    # Padding repeats the true token, which is left out anyway.
    left = z.scatter(1, torch.where(there, at, at[:, :1]), -torch.inf)
    log_rest = left.logsumexp(1) - total[:, 0]
    p, rest = log_p.exp(), log_rest.exp()
    rest_q = (1 - log_q_NK.exp().sum(1)).clamp_min(0) + ROUNDING
    terms = torch.where(p > 0, p * (log_p - log_q_NK), 0.0)
    tail = torch.where(rest > 0, rest * (log_rest - rest_q.log()), 0.0)
    kl = (terms.sum(1) + tail).clamp_min(0)
    nll_cand = -log_q_NK[:, 0]
    likely = _ranked(ids_NK, log_q_NK)
    five = _largest(z_NV, _groups(z_NV, "amax"))
    alike = (five[:, :, None] == likely[:, None, :TOP]).sum((1, 2)).double()
    if ids_NK.shape[1] - 1 < TOP:  # all but the true token's may be among the most likely
        alike = torch.full_like(alike, torch.nan)
    exact = {
        "nll_ref": -log_p[:, 0],
        "nll_cand": nll_cand,
        "kl": kl,
        "entropy_ref": total[:, 0] - ((z - total).exp() * z).sum(1),
        "conf_ref": (z.amax(1) - total[:, 0]).exp(),
        "conf_cand": log_q_NK.amax(1).exp(),
    }
    return {name: value.float() for name, value in exact.items()} | {
        "argmax_ref": five[:, 0].int(),
        "argmax_cand": likely[:, 0].int(),
        "top5_overlap": alike,
        **{name: torch.full_like(kl, torch.nan) for name in UNKNOWN},
        "bad_ref": ~z.isfinite().all(1),
        "bad_cand": ~(nll_cand.isfinite() & kl.isfinite()),
    }


def _ranked(ids_NK: Tensor, log_q_NK: Tensor) -> Tensor:
    """Ids by falling probability, ties to the lowest id."""
    ids, order = ids_NK.sort(dim=1, stable=True)
    values = log_q_NK.gather(1, order)
    found: Tensor = ids.gather(1, values.sort(stable=True, dim=1, descending=True).indices)
    return found
