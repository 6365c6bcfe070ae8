"""Whether two models can be held against each other, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evalharness.compat.transformers import deciding_settings
from evalharness.data.chat_templates import templates_of
from evalharness.data.documents import Document, Text, bos_token, encode
from evalharness.engines.base import LoadedModel
from evalharness.engines.fingerprint import read_alike
from evalharness.errors import InputError, short
from evalharness.pair.side import Side
from evalharness.spec.suite import Suite

NEEDS_SAME = "perplexity, KL, agreement, logit, calibration and layer metrics"
STILL = "Bits per byte and tasks still run: set `tokenizers: different` in the suite."
MEND = (
    "Mend that tokenizer, or name the reference's with model.tokenizer in its model file; if each "
    "side is to read tokens of its own, set `tokenizers: different` in the suite"
)


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
    if suite.tokenizers == "different":
        return []
    a, b = reference.loaded, candidate.loaded
    # A server does not say how many rows its head has; an id beyond the reference's is refused.
    sized = not candidate.top_logprobs
    if suite.corpora and sized and reference.vocab_size != candidate.vocab_size:
        raise InputError(
            f"the vocabularies differ in size ({a.name}: {reference.vocab_size}, {b.name}: "
            f"{candidate.vocab_size}), so {NEEDS_SAME} are impossible",
            path=b.manifest.source,
            key="model.path",
            remedy=STILL,
        )
    check_vocabulary(suite, (a.name, a.tokenizer), (b.name, b.tokenizer), b.manifest.source)
    same = a.manifest.tokenizer_fingerprint == b.manifest.tokenizer_fingerprint
    if same or not _reads_text(suite):
        return []
    return [
        "the two tokenizers share a vocabulary but are not the same build; both models are fed "
        "the reference's token ids"
    ]


def _reads_text(suite: Suite) -> bool:
    """Whether a tokenizer has a say; it has none where ids are given."""
    return bool(suite.tasks) or any(c.tokens is None for c in suite.corpora)


Named = tuple[str, Any]  # a side's name and its tokenizer


def check_vocabulary(suite: Suite, reference: Named, candidate: Named, source: str) -> None:
    """Raise `InputError` unless both tokenizers number alike, where both are to be fed one's ids.

    ``source`` is where the candidate was found.
    """
    if suite.tokenizers == "different" or not _reads_text(suite):
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


def other_tokens(
    suite: Suite,
    reference: Named,
    candidate: Named,
    documents: Sequence[Document],
    texts: Sequence[Text],
) -> list[str]:
    """Why the candidate is not fed what it would be fed where it is used; empty where it is.

    ``documents`` are those of ``texts``, by the reference's tokenizer.
    """
    (ours, our_tokenizer), (theirs, their_tokenizer) = reference, candidate
    read = [d for d in documents if texts[d.text].tokens is None]
    if suite.tokenizers == "different" or not read or read_alike(our_tokenizer, their_tokenizer):
        return []
    found = []
    others = [
        d for d in read if not np.array_equal(d.tokens, encode(texts[d.text], their_tokenizer)[0])
    ]
    if others:
        first = f"{others[0].corpus}/{others[0].id}"
        found.append(
            f"{len(others):,} of {len(read):,} documents become other tokens (the first: {first})"
        )
    before = [
        "no BOS" if (bos := bos_token(t)) is None else f"the BOS {t.convert_ids_to_tokens(bos)!r}"
        for t in (their_tokenizer, our_tokenizer)
    ]
    if before[0] != before[1]:
        found.append(f"{before[0]} comes before a text, where that of {ours} puts {before[1]}")
    if not found:
        return []
    return [
        f"by the tokenizer of {theirs}, which is not that of {ours}, {'; '.join(found)}. Both "
        f"sides were fed the tokens of {ours}. {MEND}"
    ]
