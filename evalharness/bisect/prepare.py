"""What a bisect works on: a finished run that needs one, both its models, and its documents.

Everything that can be refused is, before a model is loaded where that is possible.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalharness.errors import InputError
from evalharness.gates import fewest, needs
from evalharness.gates.limits import whose_fewest
from evalharness.metrics import REGISTRY
from evalharness.progress import Progress
from evalharness.results.judge import judge, policy_of
from evalharness.run.differences import SIDES
from evalharness.run.directory import Run
from evalharness.run.finished import rewriting
from evalharness.run.manifest import Manifest
from evalharness.spec.model import ModelSpec
from evalharness.spec.policy import Policy
from evalharness.spec.suite import Suite

if TYPE_CHECKING:
    from evalharness.bisect.trials import Trials
    from evalharness.data.documents import Document
    from evalharness.data.windows import Window
    from evalharness.pair.matching import PairedModule
    from evalharness.pair.side import Side

SEARCHED = 3  # one document in so many is searched on
_PARTS = {
    "fingerprint": "weights",
    "configuration_fingerprint": "configuration",
    "tokenizer_fingerprint": "tokenizer",
}
LEAST = 6  # documents: two to search on, four held out


@dataclass(frozen=True)
class Sample:
    """Windows of the search documents, and of those held out."""

    documents: list[Document]
    search: list[Window]
    held_out: list[Window]

    @property
    def sizes(self) -> tuple[int, int]:
        """Documents searched on and held out."""
        a, b = ({s.document for s in windows} for windows in (self.search, self.held_out))
        return len(a), len(b)


@contextmanager
def opened_for_bisect(path: Path, policy: Policy | None) -> Iterator[tuple[Run, Suite, Policy]]:
    """The run, locked, its suite and the policy; refuses what a search cannot help."""
    with rewriting(path) as run:
        suite = _searchable_suite(run)
        policy = policy or policy_of(run)
        _check_needed(run, policy)
        yield run, suite, policy


def _searchable_suite(run: Run) -> Suite:
    suite = Suite.model_validate(run.manifest["suite"])
    if not suite.corpora or suite.tokenizers == "different":
        raise InputError(
            "a bisect compares the models token by token, which this run's suite does not",
            path=run.path,
            remedy="Compare with a suite that has corpora and `tokenizers: same`.",
        )
    return suite


def _check_needed(run: Run, policy: Policy) -> None:
    """Raise where nothing fails, or nothing that a search decides; no model is loaded."""
    from evalharness.bisect.trials import searchable

    search, left_out = searchable(policy)
    estimates, decision, _ = judge(run, policy)
    if decision.verdict == "PASS":
        raise InputError(
            f"the run passes {policy.name}: there is nothing to repair",
            path=run.path,
            remedy="Give a stricter policy with --gates to see what it would take.",
        )
    rules = {g.id for g in search.gates}
    broken = [g for g in decision.gates if g.blocking and g.verdict != "PASS"]
    if broken and not any((g.rule or g.id) in rules for g in broken):
        names = ", ".join(f"{g.id} ({g.verdict})" for g in broken)
        raise InputError(
            f"what stands in the way is {names}, which a search does not decide (left out of it: "
            f"{', '.join(left_out)}); every gate on text and layers passes already",
            path=run.path,
            key="gates",
            remedy="Give --gates with a tighter limit on text, such as {metric: kl.mean, max: …}.",
        )
    _check_documents(run, policy, rules, len(estimates.evidence.documents))


def _check_documents(run: Run, policy: Policy, rules: set[str], documents: int) -> None:
    """Raise where a repair could not be verified on the documents that are held out."""
    held_out = documents - math.ceil(documents / SEARCHED)
    planned = {need.gate: need.to_decide for need in needs(policy) if REGISTRY[need.metric].rate}
    for gate in policy.gates:
        if gate.id not in rules or gate.severity != "error":
            continue
        least = max(fewest(gate), planned.get(gate.id, 0))
        if held_out >= least:
            continue
        whole = math.ceil(least * SEARCHED / (SEARCHED - 1))
        whose = whose_fewest(gate) if least == fewest(gate) else "to show so small a share"
        raise InputError(
            f"a repair would be verified on {held_out} of the run's {documents} documents, and "
            f"{gate.id} needs {least:,} ({whose})",
            path=run.path,
            key="gates",
            remedy=f"Compare on at least {whole:,} documents, or give --gates a policy with a "
            "lower min_n or a wider limit.",
        )


@dataclass(frozen=True)
class Work:
    """Both models loaded, what could be restored, and what decides a set of it."""

    specs: list[ModelSpec]
    sides: list[Side]
    sample: Sample
    pairs: list[PairedModule]
    trials: Trials
    key: str
    notes: list[str]


def prepared(run: Run, suite: Suite, policy: Policy, device: str | None, say: Progress) -> Work:
    """Load both models and find what a search may restore.

    Raises
    ------
    InputError
        The weights or texts are not those of the run, there are too few documents, or the models
        share no linear module that differs.

    """
    from evalharness.bisect.repairable import differing
    from evalharness.bisect.trials import Trials

    specs = [ModelSpec.model_validate(run.manifest[k]) for k in ("reference", "candidate")]
    sides = [_loaded(run, spec, i, device, say) for i, spec in enumerate(specs)]
    reference, candidate = sides
    sample = _sample(run, suite, reference)
    pairs, notes = differing(reference, candidate)
    if not pairs:
        raise InputError(
            f"no linear module of {specs[1].name} can be taken from {specs[0].name}: "
            + ("; ".join(notes) or "their linear modules are the same"),
            path=run.path,
            remedy="A bisect restores modules that both models have by one name and "
            "in one shape, such as those of a quantised copy.",
        )
    trials = Trials(
        reference,
        candidate,
        pairs=pairs,
        documents=sample.documents,
        windows=sample.search,
        policy=policy,
        manifest=facts_of(run, suite),
        batch_size=suite.batch_size,
    )
    return Work(specs, sides, sample, pairs, trials, _key(run, policy, sample), notes)


def _loaded(run: Run, spec: ModelSpec, index: int, device: str | None, say: Progress) -> Side:
    from evalharness.engines.loading import load
    from evalharness.pair.side import Side

    with say.step(f"loading {spec.name}") as tell:
        loaded = load(spec, device=device, progress=tell)
    recorded = run.manifest["sides"][SIDES[index]]["manifest"]
    for key, what in _PARTS.items():
        if key in recorded and recorded[key] != getattr(loaded.manifest, key):
            raise InputError(
                f"the {what} of {spec.name} changed after the run",
                path=run.path,
                key=key,
                remedy="Compare again.",
            )
    return Side(loaded)


def _sample(run: Run, suite: Suite, reference: Side) -> Sample:
    from evalharness.data import documents
    from evalharness.data.windows import cut
    from evalharness.probes.registry import watched_windows

    texts, _ = documents.read_texts(suite)
    tokenizer = reference.loaded.tokenizer
    docs = documents.tokenize(texts, suite, tokenizer, reference.vocab_size)
    if documents.fingerprint(docs) != run.manifest["token_stream"]:
        raise InputError(
            "the suite's texts are not those of the run",
            path=run.path,
            key="token_stream",
            remedy="They have changed since: compare again.",
        )
    windows = cut(docs, suite, documents.bos_token(tokenizer), watched_windows(suite))
    numbers = list(dict.fromkeys(s.document for s in windows))
    if len(numbers) < LEAST:
        raise InputError(
            f"a bisect needs at least {LEAST} documents, some to search on and some held out "
            f"(got {len(numbers)})",
            path=run.path,
            key="suite",
            remedy="Compare with a larger suite, or without --limit.",
        )
    chosen = set(numbers[::SEARCHED])  # the order is random already
    search = [s for s in windows if s.document in chosen]
    return Sample(docs, search, [s for s in windows if s.document not in chosen])


def facts_of(run: Run, suite: Suite) -> Manifest:
    """What a policy reads of a run beside its records, sides excluded."""
    return {
        "suite": suite.model_dump(mode="json"),
        "noise_floor": run.manifest.get("noise_floor") or {},
        "noise_floor_missing": run.manifest.get("noise_floor_missing") or {},
        "matching": run.manifest.get("matching"),
        "slices": run.manifest.get("slices") or [],
        "same_text": run.manifest.get("same_text") or [],
        "shared_items": run.manifest.get("shared_items"),
    }


def _key(run: Run, policy: Policy, sample: Sample) -> str:
    from evalharness.bisect.trials import STRICTER

    gates = [
        {k: str(v) for k, v in vars(g).items() if k not in ("place", "places")}
        for g in policy.gates
    ]
    inputs = [
        run.manifest["identity"],
        policy.confidence,
        STRICTER,
        gates,
        [s.number for s in sample.search],
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
