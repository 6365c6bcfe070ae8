"""The policy decided for the candidate with some modules restored, on a sample of documents.

What a trial can decide are the gates on text and layer metrics: they need one pass over the sample.
Gates on tasks, cost and speed, and gates relative to a stored baseline, are left out and named;
whoever searches with trials verifies the whole policy once at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from evalharness.bisect.block_replay import Replayed
from evalharness.bisect.swap import restored
from evalharness.data.documents import Document
from evalharness.data.windows import Window
from evalharness.errors import InputError, plural
from evalharness.gates import Decision, decide, needs
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.metrics.layers import error_of
from evalharness.pair.matching import PairedModule
from evalharness.pair.remembered import Remembered
from evalharness.pair.side import Side
from evalharness.pair.texts.statistics import worth_compiling
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.run.directory import InMemory
from evalharness.run.manifest import Manifest
from evalharness.spec.policy import Gate, Policy
from evalharness.spec.result import Anomaly
from evalharness.stats import MOST_CONFIDENT

STRICTER = 5  # times rarer than by the policy is a wrong pass while searching: 0.99 for 0.95
FEWEST = 2  # documents that a gate takes while searching: what an interval takes
PASSES = 10  # a search makes at least about so many
STAGES, LEAST = 4, 3  # parts that documents come in, and how many documents there are in one


@dataclass(frozen=True)
class Tried:
    """What became of a set, and how many documents it took."""

    decision: Decision
    documents: int


class Trials:
    """Decides a policy for any set of restored modules, on the same windows each time."""

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        *,
        pairs: Iterable[PairedModule],
        documents: list[Document],
        windows: Sequence[Window],
        policy: Policy,
        manifest: Manifest,
        batch_size: int,
    ) -> None:
        documents_searched = len({s.document for s in windows})
        self.policy, self.left_out = searchable(policy, documents_searched)
        self.pairs = {p.name: p for p in pairs}
        self.manifest = manifest
        errors = layer_errors(self.policy)
        self.probe = None
        linears = False
        if errors:
            linears = any(
                "**" in g.scope.get("layer", "") or not _blocks_only(g)
                for g in self.policy.gates
                if REGISTRY[g.metric].records == "layers"
            )
            self.probe = LayerWatcher(reference, candidate, linears, errors)
            manifest["matching"] = self.probe.matching.model_dump()
        self.stages = _staged([replace(s, probed=bool(errors)) for s in windows])
        # A linear inside a block that is not run again has no error to show, and for own and
        # inherited errors the reference's blocks are called.
        self.candidate: Replayed | None = None
        self.again: Replayed | None = None
        if not linears:
            self.candidate = candidate = Replayed(candidate, windows)
        first: Side = reference
        if not errors:
            first = Remembered(reference)
        elif not linears and set(errors) <= {"total"}:
            first = self.again = Replayed(reference, windows)
        positions = PASSES * sum(s.scored for s in windows)
        self.work = TokenPass(
            first,
            candidate,
            documents,
            batch_size=batch_size,
            probe=self.probe,
            compiled=worth_compiling(positions, candidate.vocab_size, candidate.device),
        )
        if self.probe is not None:
            self.probe.reference, self.probe.candidate = first, candidate
        self._kept: frozenset[str] | None = None  # what was restored in the pass that is kept
        self._parts: list[dict[str, pa.Table]] = []  # its records, a part a stage

    def tables(self, names: Iterable[str]) -> dict[str, pa.Table]:
        """The records of all documents with ``names`` restored."""
        return _joined(list(self._passes(frozenset(names))))

    def decide(self, names: Iterable[str]) -> Decision:
        """The verdict on all documents with ``names`` restored."""
        return decided(self.policy, self.manifest, self.tables(names))

    def attempt(self, names: Iterable[str], beside: Iterable[str] | None = None) -> Tried:
        """Whether the policy passes with ``names`` restored, given up as soon as it will not.

        That is after any stage at which it fails on the documents so far; or, where ``beside`` is a
        set of one module more that passes, at which it would not pass even if the documents to come
        were as good as they are with that one. So a set may be given up wrongly, and more is kept
        than must be; but PASS was seen on all documents.
        """
        chosen = frozenset(names)
        if beside is not None and frozenset(beside) != self._kept:
            self._keep(frozenset(beside), list(self._passes(frozenset(beside))))
        rest = self._parts if beside is not None else []
        parts: list[dict[str, pa.Table]] = []
        documents = 0
        for stage, found in zip(self.stages, self._passes(chosen), strict=True):
            parts.append(found)
            documents += len({s.document for s in stage})
            decision = decided(self.policy, self.manifest, _joined(parts))
            if len(parts) == len(self.stages):
                break
            if decision.verdict == "FAIL":
                return Tried(decision, documents)
            if rest:
                mixed = _joined([*parts, *rest[len(parts) :]])
                hoped = decided(self.policy, self.manifest, mixed)
                if hoped.verdict != "PASS" and _measured(hoped):
                    return Tried(hoped, documents)
        # What passes is what the next sets are smaller than: they share most of its blocks.
        if decision.verdict == "PASS":
            self._keep(chosen, parts)
        return Tried(decision, documents)

    def _passes(self, chosen: frozenset[str]) -> Iterator[dict[str, pa.Table]]:
        """The records with these modules restored, stage by stage."""
        if self.again is not None:
            self.again.begin(())
        if self.candidate is not None:
            known = self._kept is not None
            differ = [self.pairs[n] for n in chosen ^ (self._kept or frozenset())]
            self.candidate.begin([m for p in differ for m in p.candidate_names] if known else None)
        for stage in self.stages:
            with restored([self.pairs[n] for n in sorted(chosen)]):
                found = self.work.run(stage)
            if self.again is not None:
                self.again.keep()
            yield found

    def _keep(self, chosen: frozenset[str], parts: list[dict[str, pa.Table]]) -> None:
        self._kept, self._parts = chosen, parts
        if self.candidate is not None:
            self.candidate.keep()


def _staged(windows: Sequence[Window]) -> list[list[Window]]:
    """Whole documents in a few groups; always the same, so that batches and their bits are."""
    numbers = list(dict.fromkeys(s.document for s in windows))
    count = max(1, min(STAGES, len(numbers) // LEAST))
    groups = [{int(n) for n in part} for part in np.array_split(numbers, count)]
    return [[s for s in windows if s.document in group] for group in groups]


def _measured(decision: Decision) -> bool:
    """Whether what stands in the way are bounds, and not gates that have none yet."""
    return all(g.bound is not None for g in decision.gates if g.blocking and g.verdict != "PASS")


def _joined(parts: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    return {name: pa.concat_tables([p[name] for p in parts]) for name in parts[0]}


def decided(policy: Policy, manifest: Manifest, tables: dict[str, pa.Table]) -> Decision:
    """The policy on records that were never written."""
    estimates = Estimates(Evidence(InMemory(manifest, tables)))
    found = [Anomaly(kind=k, message=m) for k, m in estimates.evidence.anomalies]
    return decide(policy, estimates, anomalies=found)


def searchable(policy: Policy, documents: int | None = None) -> tuple[Policy, list[str]]:
    """The gates that a pass over text decides, at a stricter confidence than the policy's, and the
    others, with why each is left out.

    Fewest documents that a verdict may rest on are asked of what is verified, and not of the part
    that is searched on.

    Parameters
    ----------
    policy : the run's.
    documents : how many are searched on; gates that these could never decide are left out.

    """
    # A set that was picked to pass on the documents of the search does a little worse on others.
    confidence = min(1 - (1 - policy.confidence) / STRICTER, MOST_CONFIDENT)
    policy = replace(policy, confidence=round(confidence, 6))
    kept, left_out = [], []
    for gate in policy.gates:
        # A looser limit that is earned elsewhere is not looked at: the tighter one holds.
        alone = replace(gate, unless=None, min_n=FEWEST)
        why = _why_not(gate) or _too_few(alone, policy, documents)
        if why is None:
            kept.append(alone)
        else:
            left_out.append(f"{gate.id} ({why})")
    if not any(g.severity == "error" for g in kept):
        raise InputError(
            "the policy has no blocking gate on text or layers, which is what a search can decide "
            f"again and again; it has {', '.join(left_out) or 'no gates'}",
            path=policy.path,
            key="gates",
            remedy="Add a gate such as {metric: kl.mean, max: 0.1}, or give another --gates.",
        )
    return replace(policy, gates=tuple(kept), waivers=(), baseline=None), left_out


def _too_few(gate: Gate, policy: Policy, documents: int | None) -> str | None:
    """Why so many documents could not pass a gate on a share of them, whatever was restored."""
    if documents is None or not REGISTRY[gate.metric].rate:
        return None
    least = max((need.to_decide for need in needs(replace(policy, gates=(gate,)))), default=0)
    if documents >= least:
        return None
    return f"{plural(documents, 'document')} searched on could never decide it, {least:,} can"


def _why_not(gate: Gate) -> str | None:
    if gate.relative_to == "baseline":
        return "relative to a stored run"
    found = REGISTRY[gate.metric].records
    if found == "items" or "task" in gate.scope:
        return "tasks are run once, at the end"
    if found in ("manifest", "timings"):
        return "cost is counted at the end"
    return None


def layer_errors(policy: Policy) -> list[str]:
    """The kinds of layer error that the gates of ``policy`` are on."""
    on_layers = [g.metric for g in policy.gates if REGISTRY[g.metric].records == "layers"]
    return sorted({error_of(metric) for metric in on_layers})


def _blocks_only(gate: Gate) -> bool:
    """Whether ``model.layers.*`` and the like, where * stays between two dots, is all it names."""
    pattern = gate.scope.get("layer", "**")
    return pattern.endswith(".*") and "*" not in pattern[:-1]
