"""Whether two models can be held against each other, and on what."""

from __future__ import annotations

from evalharness.errors import InputError
from evalharness.pair.side import Side
from evalharness.spec.suite import Suite

NEEDS_SAME = "perplexity, KL, agreement, logit, calibration and layer metrics"
STILL = "Bits per byte and tasks still run: set `tokenizers: different` in the suite."


def check_pair(reference: Side, candidate: Side, suite: Suite) -> list[str]:
    """Raise `InputError` where token by token comparison is impossible; return warnings."""
    if suite.tokenizers == "different" or not suite.corpora:
        return []
    a, b = reference.loaded, candidate.loaded
    if reference.vocab_size != candidate.vocab_size:
        raise InputError(
            f"the vocabularies differ in size ({a.name}: {reference.vocab_size}, {b.name}: "
            f"{candidate.vocab_size}), so {NEEDS_SAME} are impossible",
            path=b.manifest.source, key="model.path", remedy=STILL,
        )  # fmt: skip
    if all(c.tokens is not None for c in suite.corpora):
        return []  # ids are given: no tokenizer has a say
    ours, theirs = a.tokenizer.get_vocab(), b.tokenizer.get_vocab()
    if ours != theirs:
        moved = [t for t, i in ours.items() if theirs.get(t) != i]
        example = f"; {moved[0]!r} is {ours[moved[0]]} and {theirs.get(moved[0])}" if moved else ""
        raise InputError(
            f"the tokenizers of {a.name} and {b.name} differ in {max(1, len(moved))} tokens"
            f"{example}, so {NEEDS_SAME} are impossible",
            path=b.manifest.source, key="model.tokenizer", remedy=STILL,
        )  # fmt: skip
    if a.manifest.tokenizer_fingerprint != b.manifest.tokenizer_fingerprint:
        return [
            "the two tokenizers share a vocabulary but are not the same build; both models are fed "
            "the reference's token ids"
        ]
    return []
