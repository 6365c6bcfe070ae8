"""`evalharness bisect RUN`: the smallest set of modules to keep so that the policy passes.

    rank     every linear that differs, by `probes.sensitivity`, on the search documents
    search   in the order of KL saved for a weight kept: gallop, bisect, delete (`search`), each set
             decided by the policy's own gates
    verify   the set, made anew from repair.yaml where a model file can say it, under the whole
             policy on documents that the search never saw; tasks and cost included

A third of the suite's documents is searched on, the rest held out: the intervals that a set must
pass with on few documents are wider than those it is verified with. Every evaluation is a line of
RUN/bisect.jsonl, from which an interrupted search goes on; `replay` makes any one of them again.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness import assets
from evalharness.errors import InputError, Interrupted
from evalharness.finish import judge, load_result, policy_of, render
from evalharness.keep_lists import keep_lists, repair_spec, spec_text
from evalharness.metrics import Evidence
from evalharness.metrics.sensitivity import sensitivity
from evalharness.progress import Progress
from evalharness.run import Run
from evalharness.search import Found, TrialLog, read_log
from evalharness.spec.model import ModelSpec
from evalharness.spec.policy import Policy
from evalharness.spec.result import Repair
from evalharness.spec.suite import Suite

if TYPE_CHECKING:
    from evalharness.data.documents import Document
    from evalharness.data.windows import Slot
    from evalharness.pair.side import Side
    from evalharness.pair.trial import Trials, Tried
    from evalharness.probes.matching import PairedModule
    from evalharness.probes.sensitivity import Scores

LOG = "bisect.jsonl"
FILE = "repair.yaml"
LISTS = "keep_lists.yaml"
LISTS_HEAD = """\
# Modules to keep, in the syntax of each tool: a key of transformers' quantisation configs;
# llm-compressor's `ignore`; torchao's filter_fn of quantize_, or FqnToConfig (add your own config
# as `_default`); AutoRound's layer_config.
"""
SEARCHED = 3  # one document in so many is searched on
SCORED_WINDOWS = 8  # of the search documents, for the ranking
CONFIRMED = 8  # modules whose score is confirmed by swaps
LEAST = 6  # documents: two to search on, four held out


@dataclass(frozen=True)
class Sample:
    """Windows of the search documents, and of those held out."""

    documents: list[Document]
    search: list[Slot]
    held_out: list[Slot]

    @property
    def sizes(self) -> tuple[int, int]:
        """Documents searched on and held out."""
        a, b = ({s.document for s in slots} for slots in (self.search, self.held_out))
        return len(a), len(b)


def bisect(
    path: Path,
    *,
    policy: Policy | None = None,
    device: str | None = None,
    evaluations: int | None = None,
    progress: Progress | None = None,
) -> Repair:
    """Find, verify and write the repair of a finished run; its report is written again."""
    progress = progress or Progress()
    run, suite, policy = _opened(path, policy)
    try:
        repair = _bisect(run, suite, policy, device, evaluations, progress)
        run.update(repair=repair.model_dump(mode="json"))
        found = {"sensitivity": sensitivity(Evidence(run)), "repair": repair}
        result = load_result(run.path).model_copy(update=found)
        run.write_text("result.json", result.model_dump_json(indent=1) + "\n")
        render(run, result)
        run.seal()
        return repair
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted. To go on: evalharness bisect {path}") from None
    finally:
        run.close()


def replay(
    path: Path,
    number: int,
    *,
    policy: Policy | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Tried]:
    """Make evaluation ``number`` (from 1) of a bisect's log again: its line, and what comes out."""
    run, suite, policy = _opened(path, policy)
    try:
        lines = read_log(run.path / LOG)
        if not 1 <= number <= len(lines):
            raise InputError(
                f"must be an evaluation of this bisect, 1 to {len(lines)} (got {number})",
                path=run.path / LOG, key="--replay",
            )  # fmt: skip
        row = lines[number - 1]
        work = _prepared(run, suite, policy, device, progress or Progress())
        if row["key"] != work.key:
            raise InputError(
                f"evaluation {number} was made under another policy", path=run.path / LOG,
                key="--replay", remedy="Give that policy with --gates.",
            )  # fmt: skip
        beside = row["beside"] and lines[row["beside"] - 1]["restored"]
        return row, work.trials.attempt(row["restored"], beside)
    finally:
        run.close()


def _opened(path: Path, policy: Policy | None) -> tuple[Run, Suite, Policy]:
    """The run, locked, its suite and the policy; refuses what a search cannot help."""
    opened = Run.open(path)
    if not opened.manifest.get("files"):
        raise InputError(
            "the run is not finished", path=path,
            remedy="Finish it first: add --resume to the command that began it.",
        )  # fmt: skip
    suite = Suite.model_validate(opened.manifest["suite"])
    if not suite.corpora or suite.tokenizers == "different":
        raise InputError(
            "a bisect compares the models token by token, which this run's suite does not",
            path=path, remedy="Compare with a suite that has corpora and `tokenizers: same`.",
        )  # fmt: skip
    policy = policy or policy_of(opened)
    run = Run.resume(path, opened.manifest["identity"])
    try:
        _drop_half_made(run)
        run.verify()
        _check_needed(run, policy)
    except BaseException:
        run.close()
        raise
    return run, suite, policy


def _drop_half_made(run: Run) -> None:
    """Remove a ranking whose writing was cut off: it is in no manifest."""
    for file in (*run.records.glob("sensitivity-*.parquet"), run.records / "done-sensitivity"):
        if str(file.relative_to(run.path)) not in run.manifest["files"]:
            file.unlink(missing_ok=True)


def _check_needed(run: Run, policy: Policy) -> None:
    """Raise where nothing fails, or nothing that a search decides; no model is loaded."""
    from evalharness.pair.trial import searchable

    search, left_out = searchable(policy)
    _, decision, _ = judge(run, policy)
    if decision.verdict == "PASS":
        raise InputError(
            f"the run passes {policy.name}: there is nothing to repair", path=run.path,
            remedy="Give a stricter policy with --gates to see what it would take.",
        )  # fmt: skip
    rules = {g.id for g in search.gates}
    broken = [g for g in decision.gates if g.blocking and g.verdict != "PASS"]
    if broken and not any((g.rule or g.id) in rules for g in broken):
        names = ", ".join(f"{g.id} ({g.verdict})" for g in broken)
        raise InputError(
            f"what stands in the way is {names}, which a search does not decide (left out of it: "
            f"{', '.join(left_out)}); every gate on text and layers passes already",
            path=run.path, key="gates",
            remedy="Give --gates with a tighter limit on text, such as {metric: kl.mean, max: …}.",
        )  # fmt: skip


@dataclass(frozen=True)
class _Work:
    """Both models loaded, what could be restored, and what decides a set of it."""

    specs: list[ModelSpec]
    sides: list[Side]
    sample: Sample
    pairs: list[PairedModule]
    trials: Trials
    key: str
    notes: list[str]


def _prepared(
    run: Run, suite: Suite, policy: Policy, device: str | None, say: Progress
) -> _Work:  # fmt: skip
    from evalharness.pair.differing import differing
    from evalharness.pair.trial import Trials

    specs = [ModelSpec.model_validate(run.manifest[k]) for k in ("reference", "candidate")]
    sides = [_loaded(run, spec, i, device, say) for i, spec in enumerate(specs)]
    reference, candidate = sides
    sample = _sample(run, suite, reference)
    pairs, notes = differing(reference, candidate)
    if not pairs:
        raise InputError(
            f"no linear module of {specs[1].name} can be taken from {specs[0].name}: "
            + ("; ".join(notes) or "their linear modules are the same"),
            path=run.path, remedy="A bisect restores modules that both models have by one name and "
            "in one shape, such as those of a quantised copy.",
        )  # fmt: skip
    trials = Trials(
        reference, candidate, pairs, sample.documents, sample.search, policy,
        manifest=_manifest(run, suite), batch_size=suite.batch_size,
    )  # fmt: skip
    return _Work(specs, sides, sample, pairs, trials, _key(run, policy, sample), notes)


def _bisect(
    run: Run, suite: Suite, policy: Policy, device: str | None, budget: int | None, say: Progress
) -> Repair:
    work = _prepared(run, suite, policy, device, say)
    log = TrialLog(run.path / LOG, work.key, work.trials, budget)
    with say.step("ranking modules") as tell:
        ordered = _ranked(run, work)
        tell(f"{len(ordered)} modules ranked")
    with say.step("searching the smallest set") as tell:
        found = log.search(ordered, tell)
    with say.step("verifying on held-out documents"):
        return _verified(run, suite, policy, work, found, log)


def _loaded(run: Run, spec: ModelSpec, index: int, device: str | None, say: Progress) -> Side:
    from evalharness.models.load import load
    from evalharness.pair.side import Side

    with say.step(f"loading {spec.name}") as tell:
        loaded = load(spec, device=device, progress=tell)
    if loaded.manifest.fingerprint != run.manifest["weights"][index]:
        raise InputError(
            f"the weights of {spec.name} are not those of the run", path=run.path,
            key="weights", remedy="They have changed since: compare again.",
        )  # fmt: skip
    return Side(loaded)


def _sample(run: Run, suite: Suite, reference: Side) -> Sample:
    from evalharness.data import documents, windows

    texts, _ = documents.read_texts(suite)
    tokenizer = reference.loaded.tokenizer
    docs = documents.tokenize(texts, suite, tokenizer, reference.vocab_size)
    if documents.fingerprint(docs) != run.manifest["token_stream"]:
        raise InputError(
            "the suite's texts are not those of the run", path=run.path, key="token_stream",
            remedy="They have changed since: compare again.",
        )  # fmt: skip
    slots = windows.cut(docs, suite, documents.bos_token(tokenizer))
    numbers = list(dict.fromkeys(s.document for s in slots))
    if len(numbers) < LEAST:
        raise InputError(
            f"a bisect needs at least {LEAST} documents, some to search on and some held out "
            f"(got {len(numbers)})",
            path=run.path, key="suite", remedy="Compare with a larger suite, or without --limit.",
        )  # fmt: skip
    chosen = set(numbers[::SEARCHED])  # the order is random already
    search = [s for s in slots if s.document in chosen]
    return Sample(docs, search, [s for s in slots if s.document not in chosen])


def _manifest(run: Run, suite: Suite) -> dict[str, Any]:
    keep = ("noise_floor", "matching")
    return {"suite": suite.model_dump(mode="json"), **{k: run.manifest.get(k) or {} for k in keep}}


def _key(run: Run, policy: Policy, sample: Sample) -> str:
    gates = [{k: str(v) for k, v in vars(g).items() if k not in ("place", "places")}
             for g in policy.gates]  # fmt: skip
    inputs = [run.manifest["identity"], policy.confidence, gates, [s.number for s in sample.search]]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _ranked(run: Run, work: _Work) -> list[str]:
    """Modules in the order of the search; what was measured for it goes into the run."""
    from evalharness.probes.sensitivity import confirm, gradient_scores

    (reference, candidate), pairs, slots = work.sides, work.pairs, work.sample.search
    if "sensitivity" in run.done():
        return _recorded_order(run, pairs)
    windows = slots[:: max(1, len(slots) // SCORED_WINDOWS)][:SCORED_WINDOWS]
    try:
        scores = gradient_scores(reference, pairs, windows)
    except (RuntimeError, NotImplementedError) as error:
        work.notes.append(
            "no gradient goes through the reference, so that modules are ordered by own error "
            f"({str(error).splitlines()[0]})"
        )
        return _by_own_error(run, pairs)
    confirm(reference, candidate, pairs, windows, scores, CONFIRMED)
    run.write_block("sensitivity", {"sensitivity": scores_table(scores)})
    run.update(
        sensitivity={"zero_swap": scores.zero_swap, "suffix": scores.suffix,
                     "order": scores.ranked(), "search_order": scores.by_cost(pairs)}
    )  # fmt: skip
    run.seal()  # an interrupted search leaves a whole run
    return scores.by_cost(pairs)


def scores_table(scores: Scores) -> Any:
    """`records.SENSITIVITY`."""
    import pyarrow as pa

    from evalharness.records import SENSITIVITY

    rows = [
        {"module": module, "what": what, "doc": doc, "tokens": scores.tokens[doc], "kl": kl}
        for (what, module), found in scores.kl.items()
        for doc, kl in found.items()
    ]
    return pa.Table.from_pylist(rows, schema=SENSITIVITY)


def _recorded_order(run: Run, pairs: list[PairedModule]) -> list[str]:
    names = {p.name for p in pairs}
    return [n for n in run.manifest["sensitivity"]["search_order"] if n in names]


def _by_own_error(run: Run, pairs: list[PairedModule]) -> list[str]:
    found: dict[str, float] = {}
    for (error, layer), rows in Evidence(run).layers.items():
        if error == "own":
            size = max(rows.column("ref_sq").sum(), 1e-30)
            found[layer] = float(rows.column("err_sq").sum() / size)
    return sorted((p.name for p in pairs), key=lambda n: -found.get(n, 0.0))


def _verified(
    run: Run, suite: Suite, policy: Policy, work: _Work, found: Found, log: TrialLog
) -> Repair:
    from evalharness import repair as made

    specs, sides, sample, notes = work.specs, work.sides, work.sample, work.notes
    n = len(work.pairs)
    searched, held_out = sample.sizes
    common: dict[str, Any] = {
        "considered": n, "minimal": found.minimal, "needed": found.needed,
        "evaluations": len(log.known),
        "exhaustive": f"{n} to try each module alone, 2^{n} to try every set",
        "search_documents": searched, "held_out_documents": held_out,
        "left_out": work.trials.left_out,
    }  # fmt: skip
    before = made.held_out_decision(run, suite, policy, sides, sample)
    bits = sides[1].loaded.manifest.bits_per_weight
    common |= {"before": before.gates, "verdict_before": before.verdict, "bits_before": bits}
    if found.restored is None:
        why = "not even the reference's own modules throughout pass on the search documents"
        if log.budget is not None and len(log.known) >= log.budget:
            why = f"no passing set was found in {log.budget} evaluations"
        return Repair(restored=None, reason="; ".join([why, *notes]), **common)
    by_name = {p.name: p for p in work.pairs}
    chosen = [by_name[name] for name in found.restored]
    names = [name for p in chosen for name in p.candidate_names]
    spec, why = repair_spec(specs[1], names, sides[1].head_name)
    run.write_text(LISTS, LISTS_HEAD + _yaml(keep_lists(names)))
    if spec is not None:
        schema = os.path.relpath(assets.folder("schemas") / "spec.json", run.path)
        comments = [
            f"yaml-language-server: $schema={schema}",
            f"Made by `evalharness bisect {run.path}`: {specs[1].name} with {len(names)} modules",
            f"as in {specs[0].name}, the smallest set found that passes {policy.name}.",
        ]
        run.write_text(FILE, spec_text(spec, comments))
    gc.collect()
    after, bits_after, skipped, extra = made.verify(
        run, suite, policy, sides, sample, chosen, spec, work.pairs
    )
    return Repair(
        restored=list(found.restored), after=after.gates, verdict_after=after.verdict,
        bits_after=bits_after, not_verified=skipped, file=FILE if spec is not None else None,
        reason="; ".join([*([why] if why else []), *extra, *notes]), keep=keep_lists(names),
        **common,
    )  # fmt: skip


def _yaml(data: Any) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))
