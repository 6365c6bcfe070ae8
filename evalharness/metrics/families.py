"""The families of metrics: what a group of them answers, in the order in which they are shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A group of metrics, with its heading and what it answers.

    ``cost`` says that its metrics measure what compression buys, so that a model against itself is
    not the best they can be.
    """

    key: str
    title: str
    about: str
    cost: bool = False


LOSS = Family("loss", "Language modelling", "How well each side predicts the true next token.")
DIVERGENCE = Family(
    "divergence",
    "Divergence",
    "How far the candidate's predictions moved, whatever the true token is.",
)
LOGITS = Family(
    "logits",
    "Logits",
    "The largest movement of any logit; bounds every change of a probability.",
)
CALIBRATION = Family("calibration", "Calibration", "Whether confidence still means what it says.")
TASK = Family("task", "Tasks", "lm-eval's own scores on both sides.")
LAYER = Family("layer", "Layers", "Output error of each module.")
COST = Family("cost", "Cost", "What the compression buys.", cost=True)
OTHER = Family("other", "Other", "Metrics that other packages registered.")

FAMILIES = (LOSS, DIVERGENCE, LOGITS, CALIBRATION, TASK, LAYER, COST, OTHER)
