"""``compare --dry-run``: everything that can be known without loading weights, in words.

Beyond what `workflow.plan` checks, the tokenizers are loaded and held against each other and the
texts are tokenised, so that the token stream, the windows and what is too short are known; the
memory is planned from file headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evalharness.data import documents, repeats
from evalharness.data.windows import cut, own_bos
from evalharness.engines.registry import find_model, runs_apart
from evalharness.errors import plural
from evalharness.gates import fewest
from evalharness.gates import needs as needs_of
from evalharness.gates.sizes import Sizes, held, unit_of
from evalharness.metrics import REGISTRY
from evalharness.spec.policy import Gate
from evalharness.spec.visible_text import printable
from evalharness.workflow.own_tokens import ANY_ID, check_own_tokens
from evalharness.workflow.plan import sizes, timed_processes

if TYPE_CHECKING:
    from rich.table import Table

    from evalharness.run.manifest import RecordedPrompts
    from evalharness.spec.model import ModelSpec
    from evalharness.workflow.plan import Job


def describe(jobs: Sequence[Job]) -> list[Table | str]:
    """What ``jobs``, which share a reference, would do; raises what the run itself would."""
    first = jobs[0]
    parts: list[Table | str] = ["ok: every input is valid; no weights were loaded", ""]
    parts += [_side("reference", first.reference)]
    parts += [_side("candidate", job.candidate) for job in jobs]
    parts += ["", *_texts(jobs), *_tasks(first)]
    if first.suite.probes:
        parts.append(f"probes     {', '.join(first.suite.probes)}")
        parts += _latency(jobs)
    parts += ["", *_memory(jobs), f"policy     {first.policy.path}", "", _gates(first)]
    parts += [f"warning: {w}" for w in first.warnings]
    return parts


def _side(what: str, spec: ModelSpec) -> str:
    made = [f"simulated ({spec.simulate})"] if spec.simulate else []
    made += [f"quantised by {spec.quantization['method']}"] if spec.quantization else []
    made += [f"adapter {spec.adapter}"] if spec.adapter else []
    return f"{what:<10} {spec.name}: {find_model(spec)}" + "".join(f", {m}" for m in made)


def _texts(jobs: Sequence[Job]) -> list[str]:
    first = jobs[0]
    none = ["texts      none"]
    specs = [first.reference, *(job.candidate for job in jobs)]
    if any(find_model(spec).kind == "engine" for spec in specs):
        many = plural(len(first.texts), "document")
        said = f"texts      {many}; tokens are known once a model is loaded"
        return [said] if first.texts else none
    from evalharness.compat.silence import quiet

    with quiet():
        from evalharness.engines.transformers import load_tokenizer
        from evalharness.pair.compatible import check_vocabulary, other_tokens

        ours, *theirs = ((spec.name, load_tokenizer(spec, find_model(spec))) for spec in specs)
        for job, other in zip(jobs, theirs, strict=True):
            check_vocabulary(first.suite, ours, other, job.candidate.model.path)
        if not first.texts:
            return none
        docs = documents.tokenize(first.texts, first.suite, ours[1], ANY_ID)
        bos = documents.bos_token(ours[1])
        windows = cut(docs, first.suite, bos)
        notes = own_bos(docs, bos)
        for job, other in zip(jobs, theirs, strict=True):
            notes += check_own_tokens(job)
            unlike = other_tokens(first.suite, ours, other, docs, first.texts)
            notes += [f"ANOMALOUS: {note}" for note in unlike]
    scored = sum(s.scored for s in windows)
    lines = [
        f"texts      {plural(len(docs), 'document')}, {plural(len(windows), 'window')}, "
        f"{sum(len(s.ids) for s in windows):,} tokens fed, {scored:,} scored",
        f"           token stream {documents.fingerprint(docs)[:16]}",
    ]
    counts = Counter(d.corpus for d in docs)
    lines += [f"  corpus   {name}: {plural(count, 'document')}" for name, count in counts.items()]
    for name, count in sizes(first.suite, first.texts, None).slices.items():
        lines.append(
            f"  slice    {name}: {'by length' if count is None else plural(count, 'document')}"
        )
    lines += [f"  {said}" for said in repeats.said(docs)]
    if short := len(first.texts) - len(docs):
        lines.append(f"  too short to score and left out: {plural(short, 'document')}")
    return lines + [f"  {note}" for note in notes]


def _tasks(job: Job) -> list[str]:
    if job.tasks is None:
        return ["tasks      none"]
    return [
        f"task       {t.name}: {plural(t.items, 'item')}, {t.num_fewshot}-shot, "
        f"{plural(t.requests, 'request')} a side, prompts {t.fingerprint[:16]}{_asked(t.asked)}"
        for t in job.tasks.tasks
    ]


def _asked(how: RecordedPrompts) -> str:
    named = how["chat_template"]
    template = "" if named is None else f", in the chat template {printable(named)!r}"
    return template + (", with a system message" if how["system"] else "")


def _latency(jobs: Sequence[Job]) -> list[str]:
    """How often the models are loaded again to be timed."""
    from evalharness.engines.device_memory import gib
    from evalharness.workflow.memory_plan import size

    processes = timed_processes(jobs[0].suite)
    if processes is None:
        return []
    lines = []
    for job in jobs:
        name = printable(job.candidate.name)
        if runs_apart(job.reference) or runs_apart(job.candidate):
            continue  # a warning says that no probe can look at it
        if job.candidate.simulate is not None:
            lines.append(f"  latency  {name}: not measured, a simulated candidate runs dequantised")
        elif processes == 1:
            lines.append(f"  latency  {name}: within the run, which decides no gate")
        else:
            sides = [size(spec, job.device).weights for spec in (job.reference, job.candidate)]
            known = [n for n in sides if n is not None]
            read = f" ({gib(sum(known))} of weights)" if len(known) == len(sides) else ""
            lines.append(
                f"  latency  {name}: {processes} fresh processes at the end, each of which loads "
                f"both models again{read}"
            )
    return lines


def _memory(jobs: Sequence[Job]) -> list[str]:
    from evalharness.workflow.memory_plan import computing_notes, plan_memory
    from evalharness.workflow.positions import check_positions

    specs = [jobs[0].reference, *(job.candidate for job in jobs)]
    notes = dict.fromkeys(computing_notes(jobs[0].device, *specs))
    notes |= dict.fromkeys(note for job in jobs for note in check_positions(job))
    plans = [plan_memory(j.reference, j.candidate, j.suite, j.device) for j in jobs]
    return [f"warning    {note}" for note in notes] + [
        f"memory     {line}" for line in dict.fromkeys(plan.lines[-1] for plan in plans)
    ]


def _gates(job: Job) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("gate", "limit", "has", "needs", "for 80% power", "unit"):
        table.add_column(name, justify="left" if name in ("gate", "unit") else "right")
    found: dict[str, list[Any]] = {}
    counts = sizes(job.suite, job.texts, job.tasks)
    for need in needs_of(job.deciding, job.spreads, counts):
        found.setdefault(need.gate, []).append(need)
    for gate in job.policy.gates:
        limits = " ".join(
            f"{sign} {limit}" for sign, limit in (("≤", gate.max), ("≥", gate.min)) if limit
        )
        needs = found.get(gate.id)
        if REGISTRY[gate.metric].of_processes:
            have = timed_processes(job.suite)
            cells = ["0" if have is None else str(have), str(fewest(gate)), "", "processes"]
            table.add_row(printable(gate.id), limits, *cells)
            continue
        if not needs:
            table.add_row(printable(gate.id), limits, *_without_spread(gate, counts))
            continue
        least = max(n.to_decide for n in needs)
        power = [n.to_pass for n in needs]
        known = [n for n in power if n is not None]
        have = needs[0].have
        table.add_row(
            printable(gate.id),
            limits,
            "?" if have is None else f"{have:,}",
            f"{least:,}",
            f"{max(known):,}" if len(known) == len(power) else "never",
            needs[0].unit,
        )
    return table


def _without_spread(gate: Gate, counts: Sizes) -> tuple[str, str, str, str]:
    """What a gate has and needs that no spread is planned for: layers, quantiles, what is counted.

    How many would pass such a gate is not known; how many a verdict rests on is.
    """
    info = REGISTRY[gate.metric]
    if info.deterministic:
        return "", "any", "", "counted"
    have = held(gate, info, counts)
    return "?" if have is None else f"{have:,}", f"{fewest(gate):,}", "?", unit_of(gate, info)
