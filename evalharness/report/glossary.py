"""The words of the report: plain names of metrics, of verdicts, of exit codes.

Ids are the contract and always stand beside the plain name; an id that is not listed here is
shown as it is, in the family of its first word.
"""

from __future__ import annotations

from dataclasses import dataclass

from evalharness.spec.result import Direction, GateResult, Scope, Verdict

VERDICTS: tuple[Verdict, ...] = ("FAIL", "ANOMALOUS", "INCONCLUSIVE", "PASS")  # worst first
SYMBOLS: dict[Verdict, str] = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "ANOMALOUS": "!"}
EXIT_CODES = {
    0: "every blocking gate passed",
    1: "a blocking gate failed",
    2: "the input is wrong",
    3: "inconclusive",
    4: "the run could not finish",
    130: "interrupted",
}
ARROWS: dict[Direction, str] = {"lower": "↓", "higher": "↑", "none": ""}
DIRECTIONS: dict[Direction, str] = {
    "lower": "lower is better",
    "higher": "higher is better",
    "none": "no better side",
}

# id → plain name
NAMES: dict[str, str] = {
    "perplexity.reference": "Perplexity, reference",
    "perplexity.candidate": "Perplexity, candidate",
    "perplexity.ratio": "Perplexity ratio, candidate ÷ reference",
    "nll.shift": "Loss shift per token, candidate − reference",
    "bits_per_byte.shift": "Loss shift per byte of text",
    "kl.mean": "KL divergence, mean",
    "kl.median": "KL divergence, median",
    "kl.p99": "KL divergence, 99th percentile",
    "kl.p999": "KL divergence, 99.9th percentile",
    "kl.max": "KL divergence, largest",
    "kl.reverse.mean": "Reverse KL divergence, mean",
    "top1.agreement": "Same most likely token",
    "top5.overlap": "Overlap of the five most likely tokens",
    "prob.rms_shift": "RMS change of the true token's probability",
    "entropy.shift": "Entropy shift, candidate − reference",
    "logit.max_abs_diff": "Largest logit difference",
    "logit.half_range": "Logit half-range, largest",
    "logit.half_range.p999": "Logit half-range, 99.9th percentile",
    "logit.exceed_rate": "Documents beyond the logit bound",
    "ece.reference": "Calibration error (ECE), reference",
    "ece.candidate": "Calibration error (ECE), candidate",
    "ece.shift": "Calibration error (ECE) shift",
    "ce2.shift": "Squared calibration error shift, debiased",
    "calibration.score.shift": "Calibration score shift",
    "brier.shift": "Brier score shift",
    "temperature.shift": "Fitted temperature shift",
    "task.score.reference": "Task score, reference",
    "task.score.candidate": "Task score, candidate",
    "task.score.shift": "Task score shift",
    "task.flips": "Task items flipped",
    "layer.error.total": "Layer error, total",
    "layer.error.own": "Layer error, its own",
    "layer.error.inherited": "Layer error, inherited",
    "layer.error.own_on_clean": "Layer error, its own on clean input",
    "router.agreement": "Same experts chosen",
    "layer.weight_error": "Weight error",
    "weights.bits_per_weight": "Bits per weight, candidate",
    "memory.weights.ratio": "Weight memory, candidate ÷ reference",
    "memory.peak.ratio": "Peak memory, candidate ÷ reference",
    "latency.prefill.ratio": "Prefill latency, candidate ÷ reference",
    "latency.decode.ratio": "Decode latency, candidate ÷ reference",
}

# Where there is little room: tiles, terminals.
BRIEF: dict[str, str] = {
    "perplexity.ratio": "Perplexity ratio",
    "nll.shift": "Loss shift",
    "kl.mean": "Mean KL divergence",
    "kl.p999": "KL divergence, p99.9",
    "top1.agreement": "Same top token",
    "logit.half_range.p999": "Logit half-range, p99.9",
    "ece.shift": "Calibration error (ECE) shift",
    "weights.bits_per_weight": "Bits per weight",
    "memory.weights.ratio": "Weight memory ratio",
    "latency.decode.ratio": "Decode latency ratio",
}


@dataclass(frozen=True)
class Family:
    """A group of metrics: the first words of their ids, a title and what it answers."""

    key: str
    title: str
    about: str
    prefixes: tuple[str, ...]


FAMILIES: tuple[Family, ...] = (
    Family(
        "loss",
        "Language modelling",
        "How well each side predicts the true next token.",
        ("perplexity", "nll", "bits_per_byte"),
    ),
    Family(
        "divergence",
        "Divergence",
        "How far the candidate's predictions moved, whatever the true token is.",
        ("kl", "top1", "top5", "prob", "entropy"),
    ),
    Family(
        "logits",
        "Logits",
        "The largest movement of any logit; bounds every change of a probability.",
        ("logit",),
    ),
    Family(
        "calibration",
        "Calibration",
        "Whether confidence still means what it says.",
        ("ece", "ce2", "calibration", "brier", "temperature"),
    ),
    Family("task", "Tasks", "lm-eval's own scores on both sides.", ("task",)),
    Family("layer", "Layers", "Output error of each module.", ("layer", "router")),
    Family("cost", "Cost", "What the compression buys.", ("weights", "memory", "latency")),
    Family("other", "Other", "Metrics that other packages registered.", ()),
)

ERROR_KINDS: dict[str, str] = {
    "total": "total: against the reference's output",
    "own": "own: what the module adds on the same input",
    "inherited": "inherited: what arrives with its input",
    "own_on_clean": "own, fed the reference's input",
}
TOKEN_MEASURES: dict[str, tuple[str, str]] = {
    "kl": ("KL divergence", "nats"),
    "half_range": ("Logit half-range", "logits"),
    "max_abs": ("Largest logit difference", "logits"),
    "nll": ("Loss shift", "nats"),
}


def metric_name(metric: str) -> str:
    """Return the plain name of a metric id, or the id itself."""
    return NAMES.get(metric, metric)


def tile_name(metric: str) -> str:
    """Return the brief name of a metric id where it has one."""
    return BRIEF.get(metric, metric_name(metric))


def family(metric: str) -> Family:
    """Return the family that a metric id belongs to."""
    first = metric.partition(".")[0]
    return next((f for f in FAMILIES if first in f.prefixes), FAMILIES[-1])


def unit_words(unit: str) -> str:
    """Return a unit as printed: a bare ratio has none."""
    return "" if unit in ("", "1") else unit


def is_waived(gate: GateResult) -> bool:
    """Return whether a gate would object and a waiver, with its reason, stands against that."""
    return gate.waiver is not None and gate.verdict != "PASS"


def objects(gate: GateResult) -> bool:
    """Return whether a gate blocks: anything but a PASS, not waived, and blocking."""
    return gate.verdict != "PASS" and gate.blocking and not is_waived(gate)


def rank(gate: GateResult) -> tuple[int, int]:
    """Sort key of a gate: what blocks first, then the worse verdict."""
    return (0 if objects(gate) else 1, VERDICTS.index(gate.verdict))


def scope_sort(scope: Scope) -> tuple[int, list[tuple[str, str]]]:
    """Sort key of a scope: everything first, then by name."""
    return (len(scope), sorted(scope.items()))
