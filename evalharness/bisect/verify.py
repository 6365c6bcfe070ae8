"""A repair held against the whole policy, on documents that the search for it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from evalharness.bisect.prepare import Sample, facts_of
from evalharness.bisect.repairable import differing
from evalharness.bisect.swap import restored
from evalharness.bisect.trials import decided, layer_errors
from evalharness.engines.loading import load
from evalharness.engines.tensor_storage import stored_tensors
from evalharness.gates import Decision
from evalharness.metrics import REGISTRY
from evalharness.pair.matching import PairedModule
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.run.directory import Run
from evalharness.run.manifest import Manifest
from evalharness.spec.model import ModelSpec, load_model_spec
from evalharness.spec.policy import Policy
from evalharness.spec.suite import Suite


def held_out_decision(
    run: Run, suite: Suite, policy: Policy, sides: Sequence[Side], sample: Sample
) -> Decision:
    """The candidate as it is; its tasks are those that the run recorded."""
    tables = _pass(suite, policy, sides, sample)
    tables |= {name: run.table(name) for name in ("items", "tasks")}
    return decided(_decidable(policy)[0], _manifest(run, suite, sides), tables)


def repaired_decision(
    run: Run,
    suite: Suite,
    policy: Policy,
    sides: Sequence[Side],
    sample: Sample,
    *,
    chosen: Sequence[PairedModule],
    spec: ModelSpec | None,
    pairs: Sequence[PairedModule],
) -> tuple[Decision, float | None, list[str], list[str]]:
    """The repaired candidate: verdict, bits per weight, the gates that stay undecided, and notes.

    With ``spec`` the model is loaded from the repair's own file, so that what is verified is what
    the file makes; else the modules are restored in memory.
    """
    reference, candidate = sides
    kept, skipped = _decidable(policy)
    if spec is not None:
        loaded = load(load_model_spec(run.place("repair.yaml")), device=str(candidate.device))
        repaired = Side(loaded)
        bits = loaded.manifest.counted_bits_per_weight
        tables = _pass(suite, policy, (reference, repaired), sample)
        tables |= _tasks(suite, policy, reference, repaired)
        manifest = _manifest(run, suite, (reference, repaired))
        notes = _other_modules(reference, repaired, pairs, chosen)
        return decided(kept, manifest, tables), bits, skipped, notes
    with restored(chosen):
        tables = _pass(suite, policy, sides, sample)
        tables |= _tasks(suite, policy, reference, candidate)
    manifest = _manifest(run, suite, sides)
    size = _bits(reference, candidate, chosen)
    side = manifest["sides"]["candidate"]["manifest"]
    bits = size / max(1, side["parameters"])
    side |= dict.fromkeys(("bits_per_weight", "counted_bits_per_weight"), bits)
    side |= dict.fromkeys(("weight_bytes", "counted_bytes"), size // 8)
    side["ships"] = "tensors"  # nothing of it is in files
    return decided(kept, manifest, tables), bits, skipped, []


def _other_modules(
    reference: Side, repaired: Side, pairs: Sequence[PairedModule], chosen: Sequence[PairedModule]
) -> list[str]:
    """Whether the file keeps other modules than the search restored, in words."""
    left = {p.name for p in differing(reference, repaired)[0]}
    wanted = {p.name for p in pairs} - {p.name for p in chosen}
    if left == wanted:
        return []
    return [
        f"the loader kept other modules than the file names ({len(left)} differ from the "
        f"reference, {len(wanted)} should): what is verified is what it made"
    ]


def _pass(suite: Suite, policy: Policy, sides: Sequence[Side], sample: Sample) -> dict[str, Any]:
    errors = layer_errors(policy)
    reference, candidate = sides
    probe = LayerWatcher(reference, candidate, suite.layers.linears, errors) if errors else None
    work = TokenPass(
        reference, candidate, sample.documents, batch_size=suite.batch_size, probe=probe
    )
    # The suite probes a few of its windows, and too few of those are held out for an interval.
    return work.run(
        [replace(s, probed=True) for s in sample.held_out] if errors else sample.held_out
    )


def _tasks(suite: Suite, policy: Policy, reference: Side, candidate: Side) -> dict[str, pa.Table]:
    """The suite's tasks on both sides, if a gate is on them."""
    on_tasks = [
        g for g in policy.gates if REGISTRY[g.metric].records == "items" or "task" in g.scope
    ]
    if not suite.tasks or not on_tasks:
        return {}
    from evalharness.data.items import prepare_tasks
    from evalharness.pair.tasks.run import group_table, run_tasks, task_tables

    prepared = prepare_tasks(suite.tasks, seed=suite.seed, tokenizer=reference.loaded.tokenizer)
    made = [
        task_tables(task)
        for task in run_tasks(
            reference.loaded,
            candidate.loaded,
            prepared,
            batch_size=suite.batch_size,
            seed=suite.seed,
        )
    ]
    names = ("items", "item_tokens", "tasks")
    found = {name: pa.concat_tables([t[name] for t in made]) for name in names}
    return found | {"groups": group_table(prepared, found["tasks"])}


def _decidable(policy: Policy) -> tuple[Policy, list[str]]:
    """The policy without gates on a stored run, whose documents are others."""
    kept = tuple(g for g in policy.gates if g.relative_to != "baseline")
    skipped = [f"{g.id} (relative to a stored run)" for g in policy.gates if g not in kept]
    return replace(policy, gates=kept, baseline=None), skipped


def _manifest(run: Run, suite: Suite, sides: Sequence[Side]) -> Manifest:
    return {
        **facts_of(run, suite),
        "sides": {
            name: {
                "manifest": side.loaded.manifest.model_dump(),
                "simulated": run.manifest["sides"][name].get("simulated", False),
            }
            for name, side in zip(("reference", "candidate"), sides, strict=True)
        },
    }


def _bits(reference: Side, candidate: Side, chosen: Sequence[PairedModule]) -> int:
    """Stored bits of the candidate with ``chosen`` as the reference stores them."""
    out = {name for p in chosen for name in p.candidate_names}
    back = {name for p in chosen for name in p.reference_names}

    def of(side: Side, keep: Any) -> int:
        return sum(
            s.bits for s in stored_tensors(side.model, {}) if keep(s.name.rpartition(".")[0])
        )

    return of(candidate, lambda n: n not in out) + of(reference, lambda n: n in back)
