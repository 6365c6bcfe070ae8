"""The choice a model made on a multiple-choice item: which, how sure, right or wrong.

Read from the log-likelihoods that lm-eval logged, by lm-eval's own rules, so that ``correct`` is
what its ``acc`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evalharness.compat.lm_eval import choices_of


@dataclass(frozen=True)
class Choice:
    """One side's choice on one item."""

    choices: tuple[str, ...]
    lls: npt.NDArray[np.float64]  # (choices,) log-likelihoods, nats
    gold: tuple[int, ...]

    @property
    def picked(self) -> int:
        """The choice of highest log-likelihood; a tie goes to the first."""
        return int(np.argmax(self.lls))

    @property
    def correct(self) -> bool:
        """What lm-eval's ``acc`` says."""
        return self.picked in self.gold

    @property
    def confidence(self) -> float:
        """Probability of the chosen answer among the choices: softmax of the log-likelihoods.

        Not normalised by length, in keeping with ``acc``. In [1/choices, 1].
        """
        return float(1.0 / np.exp(self.lls - self.lls.max()).sum())

    @property
    def target(self) -> str:
        """The right answer's text (the first, of several)."""
        return self.choices[self.gold[0]] if self.gold else ""

    def answer(self, metric: str) -> str:
        """The text that ``metric`` takes as chosen: acc_norm and acc_bytes divide by length."""
        lengths = {
            "acc_norm": [len(c) for c in self.choices],
            "acc_bytes": [len(c.encode()) for c in self.choices],
        }.get(metric)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = self.lls if lengths is None else self.lls / np.array(lengths, float)
        return self.choices[int(np.argmax(scores))]


def read_choice(task: Any, sample: dict[str, Any]) -> Choice | None:
    """The choice in a logged sample; None where the task is no plain multiple choice."""
    found = choices_of(task, sample["doc"])
    if found is None or not found[0]:
        return None
    choices, gold = found
    lls = np.array([r[0] for r in sample["filtered_resps"]], float)[: len(choices)]
    return Choice(choices, lls, gold) if len(lls) == len(choices) else None
