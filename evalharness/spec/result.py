"""``result.json``: the contract other people's scripts rely on.

Everything a report shows is here or in the records; nothing is computed while rendering.
An undefined number is null with a reason, never NaN, 0 or absent.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS"]
Severity = Literal["error", "warn", "info"]
Direction = Literal["lower", "higher", "none"]
Scope = dict[str, str]


class Part(BaseModel):
    """A frozen piece of the result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Part):
    """A metric's value with its interval. ``low``/``high`` are null when there is no honest one."""

    id: str
    scope: Scope = {}
    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    method: str = ""
    n: int = 0
    clusters: int = 0
    unit: str = ""
    direction: Direction = "none"
    noise_floor: float | None = None
    se: float | None = None
    reason: str | None = None
    worst: str | None = None  # the worst offender in words: layer, task or token with its place


class GateResult(Part):
    """One gate's decision. ``bound`` is the end of the interval that decided."""

    id: str
    rule: str = ""  # id of the policy's gate; of `each: true` gates the id adds the scope
    metric: str
    scope: Scope = {}
    verdict: Verdict
    observed: float | None
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    threshold: float | None = None
    side: Literal["max", "min"] = "max"
    severity: Severity = "error"
    blocking: bool = True
    confidence: float = 0.95
    unit: str = ""
    reason: str = ""  # one or two plain sentences: measured, limit, worst offender, what to do
    worst: str | None = None
    further_documents: int | None = None
    waiver: str | None = None
    file: str | None = None
    line: int | None = None

    @property
    def offender(self) -> str | None:
        """The worst offender of a gate that did not pass, where the reason does not name it."""
        named = self.verdict == "PASS" or (self.worst or "") in self.reason
        return None if named else self.worst

    @property
    def unsaid_further(self) -> int | None:
        """The further documents that would settle it, where the reason does not say them."""
        return None if "would settle it" in self.reason else self.further_documents

    @property
    def unsaid_waiver(self) -> str | None:
        """The waiver of a gate that did not pass, where the reason does not name it."""
        named = self.verdict == "PASS" or (self.waiver or "") in self.reason
        return None if named else self.waiver

    @property
    def only_reason(self) -> bool:
        """Whether there is no number to show, as of an expired waiver: the reason says all."""
        return self.observed is None and self.threshold is None and self.bound is None


class LayerResult(Part):
    """Output error of one module, reference against candidate, position 0 apart."""

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
    """The input of one linear on one side, position 0 apart."""

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


class FlippedItem(Part):
    """A task item whose correctness changed."""

    task: str
    item: str
    change: Literal["right→wrong", "wrong→right"]
    prompt: str
    target: str
    reference_answer: str
    candidate_answer: str


class TaskResult(Part):
    """One lm-eval task on both sides; scores are lm-eval's own."""

    task: str
    metric: str
    reference: float | None
    candidate: float | None
    higher_is_better: bool
    items: int
    right_to_wrong: int | None = None
    wrong_to_right: int | None = None
    num_fewshot: int | None = None


class WorstToken(Part):
    """A token where the two models differ most, in context."""

    by: Literal["kl", "half_range", "max_abs", "nll"]
    value: float
    corpus: str
    document: str
    position: int
    before: str
    token: str
    after: str
    reference_top: str
    candidate_top: str
    p_reference: float
    p_candidate: float


class ReliabilityBin(Part):
    n: int
    confidence: float
    accuracy: float


class Histogram(Part):
    """Counts over ``edges`` (one more than counts); ``zeros`` and beyond-range kept apart."""

    edges: list[float]
    counts: list[int]
    zeros: int = 0


class Figures(Part):
    """What the report draws."""

    kl: Histogram | None = None
    reliability: dict[str, dict[str, list[ReliabilityBin]]] = {}  # scope name → side → bins
    nll_by_document: list[dict[str, Any]] = []  # {document, corpus, tokens, shift, kl}


class TensorGroup(Part):
    """Tensors stored alike."""

    storage: str  # e.g. "int4 group 32 symmetric", "bfloat16"
    tensors: int
    parameters: int
    bits_per_weight: float
    examples: list[str]


class CompressionManifest(Part):
    """The compression manifest, measured from the loaded model."""

    name: str
    source: str
    architecture: str
    dtype: str
    parameters: int
    bits_per_weight: float
    weight_bytes: int
    groups: list[TensorGroup]
    claimed: dict[str, Any] = {}
    disagreements: list[str] = []
    fingerprint: str
    tokenizer_fingerprint: str


class Compared(Part):
    reference: CompressionManifest
    candidate: CompressionManifest
    same_model: bool = False  # a model against itself: said, not hidden


class Matching(Part):
    """How modules of the two sides were paired, for the per-layer error."""

    exact: int = 0
    fused: list[str] = []
    renamed: list[str] = []
    unmatched_reference: list[str] = []
    unmatched_candidate: list[str] = []
    not_measured: list[str] = []  # paired, but no token reached them in the pass, and why
    notes: list[str] = []  # what a reader must know: other depth or width, a re-tied head


class Cost(Part):
    """Measured seconds and bytes; null with a reason where it was not measured."""

    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    reason: str | None = None


class Anomaly(Part):
    """Something that makes the run untrustworthy, named."""

    kind: str
    message: str
    metric: str | None = None  # null: of the run as a whole
    scope: Scope = {}


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


class Repair(Part):
    """The smallest set of modules found that, kept as in the reference, lets the policy pass."""

    restored: list[str] | None  # null: none was found
    considered: int  # modules that differ and could be restored
    minimal: bool  # without any one of the set it was not seen to pass
    needed: int = 0  # members of which that was tried
    evaluations: int
    exhaustive: str  # what trying every module, and every set, would have taken
    search_documents: int
    held_out_documents: int
    before: list[GateResult] = []  # on the held-out documents
    after: list[GateResult] = []
    verdict_before: Verdict | None = None
    verdict_after: Verdict | None = None
    bits_before: float | None = None  # per weight, over the whole model
    bits_after: float | None = None
    left_out: list[str] = []  # gates that the search did not decide, and why
    not_verified: list[str] = []  # gates that the end did not decide either
    file: str | None = None  # the model file that reproduces it
    reason: str = ""  # why there is none, or no set
    keep: dict[str, Any] = {}  # the set in other tools' syntax


class Waiver(Part):
    gate: str
    match: Scope = {}  # only these of the gate's scopes; empty: all
    reason: str
    owner: str | None = None
    expires: str
    state: Literal["active", "expiring", "expired", "unused"]


class Result(Part):
    """The whole of ``result.json``."""

    schema_version: int = SCHEMA_VERSION
    evalharness_version: str
    verdict: Verdict
    headline: str  # one sentence that says why
    exit_code: int
    reference: str
    candidate: str
    suite: str
    policy: str
    created: str  # ISO 8601, UTC
    metrics: list[Estimate]
    gates: list[GateResult]
    waivers: list[Waiver] = []
    layers: list[LayerResult] = []
    matching: Matching | None = None
    weights: list[WeightResult] = []
    activations: list[ActivationResult] = []
    calibration: list[CalibrationResult] = []
    routing: list[RoutingResult] = []
    similarity: Similarity | None = None
    sensitivity: Sensitivity | None = None
    repair: Repair | None = None
    tasks: list[TaskResult] = []
    flipped: list[FlippedItem] = []
    worst_tokens: list[WorstToken] = []
    figures: Figures = Figures()
    compared: Compared
    cost: Cost = Cost()
    environment: dict[str, str] = {}
    anomalies: list[Anomaly] = []
    warnings: list[str] = []
    command: str = ""
