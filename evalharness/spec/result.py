"""``result.json``: the contract other people's scripts rely on.

Everything a report shows is here or in the records; nothing is computed while rendering.
An undefined number is null with a reason, never NaN, 0 or absent.
"""

from __future__ import annotations

from typing import Any, Literal

from evalharness.spec.estimate import Estimate, Part, Scope, Severity, Verdict
from evalharness.spec.module_results import (
    ActivationResult,
    CalibrationResult,
    LayerResult,
    Matching,
    RoutingResult,
    Sensitivity,
    Similarity,
    WeightResult,
)

SCHEMA_VERSION = 1


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
    at_least: bool = False  # what was observed is a lower bound
    reason: str = ""  # one or two plain sentences: measured, limit, worst offender, what to do
    worst: str | None = None
    further_documents: int | None = None
    min_n: int | None = None  # documents or items it had to rest on; null of what is counted
    waiver: str | None = None
    file: str | None = None
    line: int | None = None

    @property
    def only_reason(self) -> bool:
        """Whether there is no number to show, as of an expired waiver: the reason says all."""
        return self.observed is None and self.threshold is None and self.bound is None


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
    chat_template: str | None = None  # the reference's of this name, in which both were asked
    system: str | None = None  # the system message that both were asked with
    binary: bool | None = None  # each item is right or wrong; null where no item has a score
    clusters: int | None = None  # independent items: those that share a passage are one
    clusters_by: str | None = None  # the field of an item that holds the passage; null: none does
    leaves: list[str] = []  # of a group: the tasks that it brings together


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
    """Counts over ``edges`` (one more than counts), with ``zeros`` and what is beyond."""

    edges: list[float]
    counts: list[int]
    zeros: int = 0


class DocumentShift(Part):
    """How far the loss of one document moved; null where one of its positions has no number."""

    document: str
    corpus: str
    tokens: int  # scored
    shift: float | None  # mean NLL of the candidate − that of the reference, nats a token
    kl: float | None  # mean over the tokens, nats


class ConfidenceBin(Part):
    """Tokens of one tenth of the reference's confidence, the probability of its top token.

    The confidence is the column ``conf_ref`` of the token records, over all texts. Where many
    tokens have the same one, as exactly 1, there are fewer bins.
    """

    low: float  # the least and the largest confidence in it
    high: float
    kl: Estimate  # the mean over its tokens


NEXT_TOKEN = "next token"  # noqa: S105 (in Figures.reliability: the prediction of the next token of texts)


class Figures(Part):
    """What the report draws."""

    kl: Histogram | None = None
    kl_by_confidence: list[ConfidenceBin] = []
    # NEXT_TOKEN or the name of a task → side → bins
    reliability: dict[str, dict[str, list[ReliabilityBin]]] = {}
    nll_by_document: list[DocumentShift] = []


Kernel = Literal[
    "dense",
    "low-bit",
    "dequantised on the fly",
    "dequantised on loading",
    "dequantised on the first forward pass",
    "simulated",
    "not known",
]
# What computes in float here although a low-bit kernel would be deployed.
EMULATED: frozenset[Kernel] = frozenset(
    ["dequantised on loading", "dequantised on the first forward pass", "simulated"]
)


class TensorGroup(Part):
    """Tensors stored alike."""

    storage: str  # e.g. "int4 group 32 symmetric", "bfloat16"
    tensors: int
    parameters: int
    bits_per_weight: float
    examples: list[str]


class EngineControl(Part):
    """An engine held against the weights of its own file: mean KL, in nats a token."""

    windows: int
    kernels: float  # from the file's weights, dequantised in float32, to the engine
    weights: float | None = None  # from the reference to those weights; null: of the reference


class CompressionManifest(Part):
    """The compression manifest, measured from the loaded model."""

    name: str
    source: str
    architecture: str
    dtype: str
    parameters: int
    bits_per_weight: float | None  # of what ships; null: not measured
    weight_bytes: int | None  # of what ships
    ships: Literal["files", "tensors"] = "tensors"  # tensors: nothing was saved of it yet
    counted_bits_per_weight: float | None = None  # of the loaded tensors, or what they stand for
    counted_bytes: int | None = None
    resident_bytes: int | None = None  # once it has run here
    not_measured: str | None = None  # why a number of these is null
    format: str = ""  # of the linear and expert weights
    activations: str = ""
    kv_cache: str = ""
    kernel: Kernel = "not known"
    compressed_share: float | None = None  # of the linear and expert weights
    sparsity: float | None = None  # share of exact zeros in them; null: some are packed
    two_of_four: float | None = None  # share in runs of four inputs of which two are zero
    groups: list[TensorGroup]  # of the loaded tensors
    file_groups: list[TensorGroup] = []  # of the tensors in a GGUF file
    claimed: dict[str, Any] = {}
    disagreements: list[str] = []
    fingerprint: str
    tokenizer_fingerprint: str
    configuration_fingerprint: str = ""  # of all that decides a forward pass beside the weights
    control: EngineControl | None = None  # null: the weights run in transformers themselves


class Compared(Part):
    reference: CompressionManifest
    candidate: CompressionManifest
    same_model: bool = False  # a model against itself: said, not hidden


class BothSides(Part):
    """One quantity of the reference and of the candidate."""

    reference: float
    candidate: float


class Cost(Part):
    """Measured seconds and bytes."""

    seconds: dict[str, float] = {}  # of the run, by phase; both sides work in each
    memory: dict[str, float] = {}  # bytes of the process that holds both sides
    memory_by_side: dict[str, BothSides] = {}  # bytes, by what they hold
    # Mean over what the probe `latency` timed, by what it is; batches, prompts and steps are the
    # suite's, and the ratio with its interval is a metric.
    speed_by_side: dict[str, BothSides] = {}
    reason: str | None = None  # why something of it is missing


class Anomaly(Part):
    """Something that makes the run untrustworthy, named."""

    kind: str
    message: str
    metric: str | None = None  # null: of the run as a whole
    scope: Scope = {}


class Repair(Part):
    """The smallest set of modules found that, kept as in the reference, lets the policy pass."""

    restored: list[str] | None  # null: none was found
    considered: int  # modules that differ and could be restored
    minimal: bool  # leaving out any one of the set, it did not pass
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


class Unseen(Part):
    """The fault that every PASS of a mean over documents leaves open.

    Documents drawn at random hold none of the faulty ones, with a probability above 1 −
    ``confidence``, where these are a smaller ``share`` of all.
    """

    share: float
    documents: int  # behind the gate with the fewest
    scope: Scope = {}  # of that gate
    confidence: float
    gates: list[str]  # the ids of those PASSes


class NearLossless(Part):
    """A mean KL so small that it does not follow task scores."""

    kl: float  # upper end of the mean's interval, nats a token
    limit: float  # up to which it is called so
    gates: list[str]  # ids of those on signed metrics, which tell harm from mere displacement


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
    unseen: Unseen | None = None  # null: no gate on a mean over documents passed
    near_lossless: NearLossless | None = None
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
    extra: dict[str, Any] = {}  # of other packages' probes, by the probe's name
