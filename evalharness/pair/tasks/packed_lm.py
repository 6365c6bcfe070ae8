"""The two sides of lm-eval's evaluator, whose log-likelihoods come from the paired, packed pass.

Generation and whatever cannot be packed are lm-eval's own (`PlainLM`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from evalharness.engines.base import LoadedModel
from evalharness.engines.fingerprint import read_alike
from evalharness.pair.rows_alone import alone_because
from evalharness.pair.tasks.hflm import PlainLM
from evalharness.pair.tasks.kept_prompts import KeptPrompts
from evalharness.pair.tasks.own_tokens import OwnTokens
from evalharness.pair.tasks.packed_pass import Key, PackedSide, PairedPass
from evalharness.pair.tasks.packing_trial import reached, unsupported


class PackedLM(PlainLM):
    """lm-eval's model for one side; its log-likelihoods are those of the paired pass."""

    def __init__(
        self, loaded: LoadedModel, scorer: PackedScorer, number: int, **options: Any
    ) -> None:
        super().__init__(loaded, **options)
        self._scorer, self._number = scorer, number
        self._items: list[int] | None = None

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        self._items = [r.doc_id for r in requests]
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._items = None

    def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
        if not self._scorer.takes(requests):
            return super()._loglikelihood_tokens(requests, **options)
        self.fit(requests)
        keys: list[Key] = [(tuple(c), tuple(k)) for _, c, k in requests]
        # The windows of rolling requests come without their items, a few at a time.
        if self._items is not None and self._number == 0:
            self._scorer.asked.extend(zip(self._items, keys, strict=True))
        return self._scorer.paired.answers(self._number, keys)


class PackedScorer:
    """Scores both sides of a task in one pass, where that is exact."""

    def __init__(
        self,
        reference: LoadedModel,
        candidate: LoadedModel,
        *,
        batch_size: int,
        max_length: int,
        answered: Callable[[int], None],
        kept: KeptPrompts | None = None,
        same_tokens: bool = True,
    ) -> None:
        sides = [PackedSide(side) for side in (reference, candidate)]
        self.notes = [
            f"{side.side.loaded.name}: {why}; tasks are scored request by request, and without KL"
            for side in sides
            if (why := unsupported(side)) is not None
        ]
        self.usable = not self.notes
        self.asked: list[tuple[int, Key]] = []  # (item by its place in the sample, request)
        self._sides = sides
        self._tried = 0  # tokens of the longest request that was asked after
        self._window: int | None = None  # of the narrowest attention
        self._names = " and ".join(dict.fromkeys(s.side.loaded.name for s in sides))
        # Different vocabularies: the ids of one side mean nothing to the other.
        same_tokens = same_tokens and (
            reference.tokenizer.get_vocab() == candidate.tokenizer.get_vocab()
        )
        self.paired = PairedPass(
            sides,
            batch_size=batch_size,
            max_length=max_length,
            answered=answered,
            kept=kept,
            together=same_tokens and sides[0].side.vocab_size == sides[1].side.vocab_size,
        )
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "max_length": max_length,
            "answered": answered,
        }
        asked = reference.tokenizer if same_tokens else candidate.tokenizer
        self.lms = [
            PackedLM(reference, self, 0, **options),
            PackedLM(candidate, self, 1, tokenizer=asked, **options),
        ]
        own = candidate.tokenizer
        if same_tokens and not read_alike(own, asked):
            names = (reference.name, candidate.name)
            self.lms[1].own_tokens = OwnTokens(self.lms[1], own, names)

    def positions(self) -> dict[str, npt.NDArray[Any]]:
        """`PairedPass.positions` of all that was asked since `forget`."""
        return self.paired.positions(self.asked)

    def forget(self) -> None:
        """Drop what is known of the task."""
        self.asked.clear()
        self.paired.forget()
        if self.lms[1].own_tokens is not None:
            self.lms[1].own_tokens.forget()

    def anomalies(self, task: str) -> list[str]:
        """Why what was asked in ``task`` is not what the candidate would be asked."""
        own = self.lms[1].own_tokens
        return [] if own is None else own.said(task)

    def takes(self, requests: Any) -> bool:
        """Whether ``requests`` can be packed; if not, says so once in ``notes``."""
        if not self.usable:
            return False
        longest = max((len(c) + len(k) for _, c, k in requests), default=0)
        longest = min(longest, self.paired.max_length)  # contexts are cut to it
        alone = [why for s in self._sides if (why := alone_because(s.side.loaded, longest))]
        for why in alone:
            self._note(f"{why}: tasks are scored one request at a time, and without KL")
        if alone:
            return False
        if longest > self._tried:
            self._tried = longest
            windows = [w for s in self._sides if (w := reached(s, longest)) is not None]
            self._window = min(windows, default=None)
        if self._window is None or longest <= self._window:
            return True
        self._note(
            f"{self._names}: requests of more than {self._window} tokens, which attention here "
            "does not reach back over, are scored request by request, and without KL"
        )
        return False

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
