"""Whether two models can be held against each other, and on what."""

from __future__ import annotations

from typing import Any

from evalharness.compat.transformers import deciding_settings
from evalharness.data.chat_templates import templates_of
from evalharness.engines.base import LoadedModel
from evalharness.errors import InputError, short
from evalharness.pair.side import Side
from evalharness.spec.suite import Suite

NEEDS_SAME = "perplexity, KL, agreement, logit, calibration and layer metrics"
STILL = "Bits per byte and tasks still run: set `tokenizers: different` in the suite."


def check_pair(reference: Side, candidate: Side, suite: Suite) -> list[str]:
    """Raise `InputError` where token by token comparison is impossible; return warnings."""
    a, b = reference.loaded, candidate.loaded
    return [
        *_other_settings(a, b),
        *_tokens(reference, candidate, suite),
        *_other_templates(a, b, suite),
    ]


def _other_settings(a: LoadedModel, b: LoadedModel) -> list[str]:
    """The same weights under another configuration are another model: by which keys."""
    if a.manifest.fingerprint != b.manifest.fingerprint:
        return []
    ours, theirs = deciding_settings(a.model), deciding_settings(b.model)
    changed = [
        f"{key}: {short(ours.get(key))} and {short(theirs.get(key))}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    if not changed:
        return []
    return [
        f"{a.name} and {b.name} hold the same weights under different configurations "
        f"({'; '.join(changed)}), and so are not the same model"
    ]


def _other_templates(a: LoadedModel, b: LoadedModel, suite: Suite) -> list[str]:
    """Tasks are asked once, in the reference's chat template: where the candidate's is another."""
    asked = dict.fromkeys(t.template for t in suite.tasks if t.template is not None)
    if not asked:
        return []
    ours, theirs = templates_of(a.tokenizer), templates_of(b.tokenizer)
    both = f"both sides are asked in the one of {a.name}"
    found = []
    for name in asked:
        if name not in theirs:
            found.append(f"{b.name} has no chat template {name!r}: {both}")
        elif ours.get(name) != theirs[name]:
            found.append(f"the chat template {name!r} of {b.name} is not that of {a.name}: {both}")
    special = [getattr(s.tokenizer, "special_tokens_map", None) for s in (a, b)]
    if not found and special[0] != special[1]:
        found.append(
            f"{b.name} has other special tokens than {a.name}, which chat templates may write: "
            f"{both}"
        )
    return found


def _tokens(reference: Side, candidate: Side, suite: Suite) -> list[str]:
    if suite.tokenizers == "different" or not suite.corpora:
        return []
    a, b = reference.loaded, candidate.loaded
    if reference.vocab_size != candidate.vocab_size:
        raise InputError(
            f"the vocabularies differ in size ({a.name}: {reference.vocab_size}, {b.name}: "
            f"{candidate.vocab_size}), so {NEEDS_SAME} are impossible",
            path=b.manifest.source,
            key="model.path",
            remedy=STILL,
        )
    check_vocabulary(suite, (a.name, a.tokenizer), (b.name, b.tokenizer), b.manifest.source)
    if all(c.tokens is not None for c in suite.corpora):
        return []  # ids are given: no tokenizer has a say
    if a.manifest.tokenizer_fingerprint != b.manifest.tokenizer_fingerprint:
        return [
            "the two tokenizers share a vocabulary but are not the same build; both models are fed "
            "the reference's token ids"
        ]
    return []


def check_vocabulary(
    suite: Suite, reference: tuple[str, Any], candidate: tuple[str, Any], source: str
) -> None:
    """Raise `InputError` unless both tokenizers, each with its side's name, number alike."""
    if suite.tokenizers == "different" or all(c.tokens is not None for c in suite.corpora):
        return
    ours, theirs = reference[1].get_vocab(), candidate[1].get_vocab()
    if ours == theirs:
        return
    moved = [t for t, i in ours.items() if theirs.get(t) != i]
    example = f"; {moved[0]!r} is {ours[moved[0]]} and {theirs.get(moved[0])}" if moved else ""
    raise InputError(
        f"the tokenizers of {reference[0]} and {candidate[0]} differ in {max(1, len(moved))} "
        f"tokens{example}, so {NEEDS_SAME} are impossible",
        path=source,
        key="model.tokenizer",
        remedy=STILL,
    )
