"""The parts of `result.json` about modules of the two models: errors, weights, inputs, routing."""

from __future__ import annotations

from typing import Any, Literal

from evalharness.spec.estimate import Estimate, Part


class LayerResult(Part):
    """Output error of one module, reference against candidate, without position 0."""

    layer: str
    kind: Literal["block", "linear", "experts", "router"]
    type: str
    error: str  # total, own, inherited, own_on_clean
    tokens: int
    median: float | None  # median over tokens of ‖Δh‖/‖h‖
    low: float | None = None
    high: float | None = None
    pooled: float | None = None  # √(Σ‖Δh‖²/Σ‖h‖²)
    sqnr_db: float | None = None  # of the pooled error; null when the error is exactly 0
    cosine_mean: float | None = None
    cosine_p01: float | None = None
    max_abs: float | None = None
    max_abs_at: str | None = None  # document, position, channel
    position0: float | None = None  # pooled relative error of position 0
    update: float | None = None  # pooled error relative to the block's update f(x) − x
    update_low: float | None = None
    update_high: float | None = None
    worst_channel: int | None = None  # with the most squared error, over a sample of the tokens
    worst_channel_share: float | None = None  # of the squared error over all channels
    # Of the worst modules: others of the same kind and error whose interval overlaps this one's,
    # which the sample cannot tell apart; the first ten by name, and how many there are.
    alike: list[str] = []
    alike_count: int | None = None


class WeightResult(Part):
    """One weight of the candidate against the reference's."""

    layer: str
    tensor: str
    kind: Literal["linear", "embedding", "experts", "router"]
    storage_reference: str
    storage_candidate: str
    bits_reference: float | None
    bits_candidate: float | None  # stored bits a weight, scales and zero points included
    error: float | None  # ‖W̃ − W‖ / ‖W‖
    sqnr_db: float | None = None  # null where the error is exactly 0
    max_abs: float | None = None
    max_abs_at: str | None = None  # row and column
    # ‖(W̃ − W) diag(x)‖ / ‖W diag(x)‖ over the sampled inputs x, what AWQ and GPTQ keep small.
    weighted: float | None = None
    weighted_low: float | None = None
    weighted_high: float | None = None
    reason: str | None = None  # why there is no error


class ActivationResult(Part):
    """The input of one linear on one side, without position 0."""

    layer: str
    side: Literal["reference", "candidate", "calibration"]
    tokens: int
    channels: int
    max_abs: float | None
    kurtosis: float | None  # of all values; 3 for a normal distribution
    top_energy: float | None  # share of Σx² in the top 1% of the channels, at least one
    position0_max_abs: float | None = None
    outliers: list[dict[str, Any]] = []  # {channel, max_abs, energy}, the largest |x| first


class CalibrationResult(Part):
    """The suite's inputs of one linear against those of the candidate's calibration text."""

    layer: str
    range_ratio: float | None  # largest |x| of the suite over that of the calibration text
    channel_shift: float | None  # median over channels of |log₂ of the same ratio|
    beyond_range: float | None  # share of the suite's values beyond the calibration's largest |x|
    beyond_range_low: float | None = None
    beyond_range_high: float | None = None
    beyond_channel: float | None = None  # beyond the largest |x| of their own channel
    beyond_channel_low: float | None = None
    beyond_channel_high: float | None = None
    by_chance: float | None = None  # expected of beyond_channel for texts of one distribution


class RoutingResult(Part):
    """Where the router of one mixture-of-experts layer sends the same tokens on both sides."""

    layer: str
    tokens: int
    agreement: float | None  # share of the reference's choices that the candidate makes too
    low: float | None = None
    high: float | None = None
    reference: list[int] = []  # tokens sent to each expert
    candidate: list[int] = []
    not_measured: list[int] = []  # experts that neither side sent a token to


class Similarity(Part):
    """Linear CKA between blocks, for models whose blocks have no counterpart."""

    reference: list[str]  # blocks, from the input to the output
    candidate: list[str]
    cka: list[list[float | None]]  # reference × candidate; 1: alike up to rotation and scale
    best: list[
        dict[str, Any]
    ] = []  # of each reference block: {reference, candidate, cka, low, high}
    tokens: int
    minibatches: int
    source: str = "Kornblith et al. 2019; unbiased minibatch HSIC of Nguyen et al. 2021"


class Matching(Part):
    """How modules of the two sides were paired, for the per-layer error."""

    exact: int = 0
    fused: list[str] = []
    renamed: list[str] = []
    unmatched_reference: list[str] = []
    unmatched_candidate: list[str] = []
    not_measured: list[str] = []  # paired, but no token reached them in the pass, and why
    notes: list[str] = []  # what a reader must know: other depth or width, a re-tied head


class SensitiveModule(Part):
    """What one module's damage does to the output; KL from the reference in nats a token."""

    module: str
    score: float | None  # second-order KL from gradients of the clean reference
    swap: Estimate | None = None  # KL of the reference with the candidate's module in it
    restore: Estimate | None = None  # KL that the candidate loses with the reference's module in it
    noise: float | None = None  # as swap, with noise of the same norm instead of the error


class Sensitivity(Part):
    """Modules, the most sensitive first, with the controls of the measurement."""

    modules: list[SensitiveModule]
    tokens: int
    documents: int
    zero_swap: float | None = None  # KL of a module swapped for itself: must be 0 exactly
    additivity: float | None = None  # sum of the single swaps over the KL of all of them together
    notes: list[str] = []
