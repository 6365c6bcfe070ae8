"""One request, one list of ids: what the candidate's own tokenizer would make of the requests.

Both sides are fed the ids of the reference's tokenizer, so that scores and divergence are of the
same request. A candidate whose tokenizer makes others (it adds no BOS, say) is not what will run
where it is used, and its scores there are others: the run says so and is anomalous.
"""

from __future__ import annotations

import copy
from itertools import zip_longest
from typing import Any

from evalharness.pair.compatible import MEND


class OwnTokens:
    """Holds the ids of a task's texts against those of another tokenizer.

    Parameters
    ----------
    lm : lm-eval's model of the candidate, which encodes with the reference's tokenizer.
    tokenizer : the candidate's own.
    names : of the reference and the candidate.

    """

    def __init__(self, lm: Any, tokenizer: Any, names: tuple[str, str]) -> None:
        self._ours, self._names = lm.tokenizer, names
        self._lm = copy.copy(lm)  # encodes as lm-eval does
        self._lm.tokenizer, self._lm.own_tokens = tokenizer, None
        self.forget()

    def forget(self) -> None:
        """Begin another task."""
        self._seen: dict[int, bool] = {}  # by a text's hash: whether its ids are others
        self._first = ""
        self._special: dict[str, str] = {}

    def see(self, text: str, ids: list[int], *args: Any, **options: Any) -> None:
        """``ids`` are what ``text`` became, encoded with these arguments."""
        key = hash(text)
        if key in self._seen:
            return
        own = self._lm.tok_encode(text, *args, **options)
        self._seen[key] = own != ids
        if own != ids and not self._first:
            self._first = self._difference(ids, own)

    def see_special(self, name: str, what: str, ours: int) -> None:
        """The requests take this token; ``name`` is what lm-eval's model calls it."""
        own = getattr(self._lm, name)
        if own != ours:
            self._special[name] = f"{what} is {self._shown(own)} and not {self._shown(ours)}"

    def said(self, task: str) -> list[str]:
        """The anomalies of ``task``."""
        reference, candidate = self._names
        others = sum(self._seen.values())
        found = [self._special[name] for name in sorted(self._special)]
        if others:
            many = f"{others:,} of {len(self._seen):,} texts become other tokens ({self._first})"
            found.insert(0, many)
        if not found:
            return []
        return [
            f"task {task}: by the tokenizer of {candidate}, which is not that of {reference}, "
            f"{'; '.join(found)}. Both sides were asked in the tokens of {reference}. {MEND}"
        ]

    def _difference(self, ours: list[int], own: list[int]) -> str:
        pairs = enumerate(zip_longest(ours, own))
        place, (a, b) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        return f"in the first {self._shown(b)} and not {self._shown(a)} is token {place + 1}"

    def _shown(self, token: int | None) -> str:
        return "nothing" if token is None else repr(self._ours.convert_ids_to_tokens(token))
