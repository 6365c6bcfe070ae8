"""The probe ``latency``: seconds of prefill and decoding on both sides, and on CUDA peak memory.

With ``latency: {processes: N}`` the seconds are those of N fresh processes, which load both models
again once everything else is recorded; only then have the ratios an interval (`stats.processes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evalharness.probes.probe import Apart, Probe, ProbeRun
from evalharness.run.records import TIMINGS
from evalharness.spec.suite import LatencySettings

if TYPE_CHECKING:
    from evalharness.pair.side import Side


def measure(run: ProbeRun) -> Mapping[str, pa.Table]:
    """Each side's peak memory; and the seconds, unless fresh processes will measure them."""
    from evalharness.probes.decoding import CannotDecode, peak_of_batch

    asked = request(run)
    if asked is None:
        why = "the suite has no text long enough, and prompts are the beginnings of its texts"
        run.facts["not_measured"] = {"latency": why}
        return {}
    sides = {"reference": run.reference, "candidate": run.candidate}
    with run.progress.step("measuring peak memory and latency"):
        peaks = {
            name: peak_of_batch(side, run.windows[0], run.suite.batch_size)
            for name, side in sides.items()
        }
        known = {name: peak for name, peak in peaks.items() if peak is not None}
        if len(known) == len(peaks):
            run.facts["peak_bytes"] = known
        if run.apart:
            return {}
        try:
            return measure_apart(run.reference, run.candidate, asked, 1, lambda said: None)
        except CannotDecode as error:
            run.facts["not_measured"] = {"latency": str(error)}
            return {}


def request(run: ProbeRun) -> dict[str, Any] | None:
    """The prompts, a list of lists of ids a batch, and how many tokens are decoded after each.

    All are of one length, so that batches differ in nothing that a kernel is chosen by.
    """
    settings: LatencySettings = run.settings
    size = min(settings.prompt_tokens, max((len(w.ids) for w in run.windows), default=0))
    ids = [w.ids[:size].tolist() for w in run.windows if len(w.ids) >= size > 0]
    if not ids:
        return None
    texts = [ids[n % len(ids)] for n in range(settings.batches * settings.batch_size)]
    starts = range(0, len(texts), settings.batch_size)
    batches = [texts[start : start + settings.batch_size] for start in starts]
    return {"batches": batches, "steps": settings.steps}


def measure_apart(
    reference: Side,
    candidate: Side,
    asked: dict[str, Any],
    process: int,
    say: Callable[[str], None],
) -> Mapping[str, pa.Table]:
    """The seconds, in this process."""
    from evalharness.probes.decoding import time_both

    timings = time_both(reference, candidate, asked["batches"], asked["steps"], process, say)
    return {"timings": timings}


PROBE = Probe(
    name="latency",
    records={"timings": TIMINGS},
    measure=measure,
    settings=LatencySettings,
    needs_corpus=False,
    needs_same_tokens=False,
    times_reference=True,
    reach=lambda tokens, settings: min(settings.prompt_tokens, tokens) + settings.steps,
    apart=Apart(
        processes=lambda settings: settings.processes, request=request, measure=measure_apart
    ),
)
