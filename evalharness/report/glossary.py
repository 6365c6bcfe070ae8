"""The words of the report: of metrics, scopes, verdicts and exit codes.

Ids are the contract and always stand beside the plain name, which is the metric's own; an id that
is not registered, as of a package that is gone, is shown as it is.
"""

from __future__ import annotations

from evalharness.gates.scopes import label
from evalharness.metrics import REGISTRY, Family
from evalharness.metrics.families import OTHER
from evalharness.report.safe_text import visible
from evalharness.spec.estimate import Direction, Scope, Verdict

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
    """Return the plain name of a metric id; of one that is not registered, the id itself."""
    return REGISTRY[metric].name if metric in REGISTRY else metric


def tile_name(metric: str) -> str:
    """Return the brief name of a metric id where it has one."""
    return (metric in REGISTRY and REGISTRY[metric].brief) or metric_name(metric)


def family(metric: str) -> Family:
    """Return the family that a metric id belongs to."""
    return REGISTRY[metric].family if metric in REGISTRY else OTHER


def unit_words(unit: str) -> str:
    """Return a unit as a column of units has it."""
    return "" if unit in ("1", "as the task") else unit


def unit_beside(unit: str) -> str:
    """Return a unit as it stands beside its number: nothing where the number needs none."""
    return "" if unit in ("1", "ratio", "fraction", "as the task") else unit


def scope_words(scope: Scope) -> str:
    """Say in words what a scope covers.

    >>> scope_words({"task": "arc_easy", "metric": "acc"})
    'task arc_easy (acc)'
    """
    if not scope:
        return "everything"
    known = {key: scope[key] for key in ("corpus", "slice", "layer") if key in scope}
    words = [f"{key} {visible(value)}" for key, value in known.items()]
    metric = f" ({visible(scope['metric'])})" if "metric" in scope else ""
    named = [key for key in ("task", "group") if key in scope]
    words += [f"{key} {visible(scope[key])}{metric}" for key in named]
    if metric and not named:
        words.append(f"metric {visible(scope['metric'])}")
    rest = sorted(set(scope) - {"corpus", "slice", "layer", "task", "group", "metric"})
    return ", ".join(words + [f"{visible(key)} {visible(scope[key])}" for key in rest])


def scope_key(scope: Scope) -> str:
    """Return the compact form used in names of test cases: ``corpus=pydoc, slice=code``."""
    return visible(label(dict(sorted(scope.items()))))


def sentence(text: str) -> str:
    """Return ``text`` ending in a full stop."""
    text = text.strip()
    return text if not text or text[-1] in ".!?…" else text + "."


def scope_sort(scope: Scope) -> tuple[int, list[tuple[str, str]]]:
    """Sort key of a scope: everything first, then by name."""
    return (len(scope), sorted(scope.items()))
