"""`evalharness bisect RUN`: the smallest set of modules to keep so that the policy passes.

    rank     every linear that differs, by `bisect.rank`, on the search documents
    search   in the order of KL saved for a weight kept: gallop, bisect, delete (`search`), each set
             decided by the policy's own gates
    verify   the set, made anew from repair.yaml where a model file can say it, under the whole
             policy on documents that the search never saw; tasks and cost included

A third of the suite's documents is searched on, the rest held out. A set picked among many to pass
on some documents does a little worse on others, so the search asks for a stricter confidence than
the policy (`bisect.trials.STRICTER`), on fewer documents than the set is verified with. Every
evaluation is a line of RUN/bisect.jsonl, from which an interrupted search goes on; `replay` makes
any one of them again.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.bisect.keep_lists import keep_lists, repair_spec, spec_text
from evalharness.bisect.prepare import Work, opened_for_bisect, prepared
from evalharness.bisect.search import Found, TrialLog, read_log
from evalharness.errors import InputError, plural
from evalharness.metrics import Evidence
from evalharness.progress import Progress
from evalharness.results.files import load_result
from evalharness.results.sensitivity import sensitivity
from evalharness.run.command import Command
from evalharness.run.directory import Run
from evalharness.spec.permissions import as_options
from evalharness.spec.policy import Policy
from evalharness.spec.result import Repair
from evalharness.spec.suite import Suite
from evalharness.workflow.interrupt import resumable
from evalharness.workflow.seal import render

if TYPE_CHECKING:
    from evalharness.bisect.rank import Scores
    from evalharness.bisect.trials import Tried
    from evalharness.pair.matching import PairedModule

LOG = "bisect.jsonl"
FILE = "repair.yaml"
LISTS = "keep_lists.yaml"
LISTS_HEAD = """\
# Modules to keep, in the syntax of each tool: a key of transformers' quantisation configs;
# llm-compressor's `ignore`; torchao's filter_fn of quantize_, or FqnToConfig (add your own config
# as `_default`); AutoRound's layer_config.
"""
SCORED_WINDOWS = 8  # of the search documents, for the ranking
CONFIRMED = 8  # modules whose score is confirmed by swaps


def bisect(
    path: Path,
    *,
    policy: Policy | None = None,
    device: str | None = None,
    evaluations: int | None = None,
    progress: Progress | None = None,
    command: Command | None = None,
) -> Repair:
    """Find, verify and write the repair of a finished run; its report is written again.

    ``command`` resumes it once it was interrupted; default: made of the other arguments.
    """
    progress = progress or Progress()
    if command is None:
        options = {"gates": policy and policy.path, "evaluations": evaluations, "device": device}
        command = Command("bisect", (path,), {**options, **as_options()})
    with opened_for_bisect(path, policy) as (run, suite, policy), resumable(path, command):
        repair = _bisect(run, suite, policy, device, evaluations, progress)
        run.update(repair=repair.model_dump(mode="json"))
        found = {"sensitivity": sensitivity(Evidence(run)), "repair": repair}
        result = load_result(run.path).model_copy(update=found)
        run.write_text("result.json", result.model_dump_json(indent=1) + "\n")
        render(run, result)
        run.seal()
        return repair


def replay(
    path: Path,
    number: int,
    *,
    policy: Policy | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Tried]:
    """Make evaluation ``number`` (from 1) of a bisect's log again: its line, and what comes out."""
    with opened_for_bisect(path, policy) as (run, suite, policy):
        lines = read_log(run.path / LOG)
        if not 1 <= number <= len(lines):
            raise InputError(
                f"must be an evaluation of this bisect, 1 to {len(lines)} (got {number})",
                path=run.path / LOG,
                key="--replay",
            )
        row = lines[number - 1]
        work = prepared(run, suite, policy, device, progress or Progress())
        if row["key"] != work.key:
            raise InputError(
                f"evaluation {number} was made under another policy",
                path=run.path / LOG,
                key="--replay",
                remedy="Give that policy with --gates.",
            )
        beside = row["beside"] and lines[row["beside"] - 1]["restored"]
        return row, work.trials.attempt(row["restored"], beside)


def _bisect(
    run: Run, suite: Suite, policy: Policy, device: str | None, budget: int | None, say: Progress
) -> Repair:
    work = prepared(run, suite, policy, device, say)
    log = TrialLog(run.path / LOG, work.key, work.trials, budget)
    with say.step("ranking modules") as tell:
        ordered = _ranked(run, work)
        tell(f"{plural(len(ordered), 'module')} ranked")
    with say.step("searching the smallest set") as tell:
        found = log.search(ordered, tell)
    with say.step("verifying on held-out documents"):
        return _verified(run, suite, policy, work, found, log)


def _ranked(run: Run, work: Work) -> list[str]:
    """Modules in the order of the search; what was measured for it goes into the run."""
    from evalharness.bisect.rank import confirm, gradient_scores

    (reference, candidate), pairs, windows = work.sides, work.pairs, work.sample.search
    if "sensitivity" in run.done():
        return _recorded_order(run, pairs)
    sampled = windows[:: max(1, len(windows) // SCORED_WINDOWS)][:SCORED_WINDOWS]
    try:
        scores = gradient_scores(reference, pairs, sampled)
    except (RuntimeError, NotImplementedError) as error:
        work.notes.append(
            "no gradient goes through the reference, so that modules are ordered by own error "
            f"({str(error).splitlines()[0]})"
        )
        return _by_own_error(run, pairs)
    confirm(reference, candidate, pairs, sampled, scores, CONFIRMED)
    run.write_block("sensitivity", {"sensitivity": scores_table(scores)})
    run.update(
        sensitivity={
            "zero_swap": scores.zero_swap,
            "suffix": scores.suffix,
            "order": scores.ranked(),
            "search_order": scores.by_cost(pairs),
        }
    )
    run.seal()  # an interrupted search leaves a whole run
    return scores.by_cost(pairs)


def scores_table(scores: Scores) -> Any:
    """`records.SENSITIVITY`."""
    import pyarrow as pa

    from evalharness.run.records import SENSITIVITY

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
    run: Run, suite: Suite, policy: Policy, work: Work, found: Found, log: TrialLog
) -> Repair:
    from evalharness.bisect import verify as made

    specs, sides, sample, notes = work.specs, work.sides, work.sample, work.notes
    n = len(work.pairs)
    searched, held_out = sample.sizes
    common: dict[str, Any] = {
        "considered": n,
        "minimal": found.minimal,
        "needed": found.needed,
        "evaluations": len(log.known),
        "exhaustive": f"{n} to try each module alone, 2^{n} to try every set",
        "search_documents": searched,
        "held_out_documents": held_out,
        "left_out": work.trials.left_out,
    }
    before = made.held_out_decision(run, suite, policy, sides, sample)
    bits = sides[1].loaded.manifest.counted_bits_per_weight
    common |= {"before": before.gates, "verdict_before": before.verdict, "bits_before": bits}
    if found.restored is None:
        why = "not even the reference's own modules throughout pass on the search documents"
        if stuck := log.in_the_way():
            why += f" ({stuck})"
        if log.budget is not None and len(log.known) >= log.budget:
            why = f"no passing set was found in {plural(log.budget, 'evaluation')}"
        return Repair(restored=None, reason="; ".join([why, *notes]), **common)
    by_name = {p.name: p for p in work.pairs}
    chosen = [by_name[name] for name in found.restored]
    names = [name for p in chosen for name in p.candidate_names]
    spec, why = repair_spec(specs[1], names, sides[1].head_name, every=len(chosen) == n)
    run.write_text(LISTS, LISTS_HEAD + _yaml(keep_lists(names)))
    if spec is not None:
        comments = [
            f"Made by `{Command('bisect', (run.path,))}`: {specs[1].name} with "
            f"{plural(len(names), 'module')}",
            f"as in {specs[0].name}, the smallest set found that passes {policy.name}.",
        ]
        run.write_text(FILE, spec_text(spec, comments))
    gc.collect()
    after, bits_after, skipped, extra = made.repaired_decision(
        run, suite, policy, sides, sample, chosen=chosen, spec=spec, pairs=work.pairs
    )
    return Repair(
        restored=list(found.restored),
        after=after.gates,
        verdict_after=after.verdict,
        bits_after=bits_after,
        not_verified=skipped,
        file=FILE if spec is not None else None,
        reason="; ".join([*([why] if why else []), *extra, *notes]),
        keep=keep_lists(names),
        **common,
    )


def _yaml(data: Any) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))
