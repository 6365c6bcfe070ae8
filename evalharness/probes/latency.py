"""The probe ``latency``: seconds of decoding on both sides, and on CUDA each side's peak memory."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from evalharness.probes.probe import Probe, ProbeRun
from evalharness.run.records import TIMINGS

PROMPTS, PROMPT_TOKENS, STEPS = 8, 64, 16


def measure(run: ProbeRun) -> Mapping[str, pa.Table]:
    """Decode a few prompts on one side and then on the other, in alternating order."""
    from evalharness.probes.decoding import decode_latency, peak_of_batch

    if not run.windows:  # prompts are the beginnings of texts
        return {}
    sides = {"reference": run.reference, "candidate": run.candidate}
    with run.progress.step("measuring decode latency"):
        prompts = [w.ids[:PROMPT_TOKENS] for w in run.windows[:PROMPTS]]
        timings = decode_latency(run.reference, run.candidate, prompts, STEPS)
        peaks = {
            name: peak_of_batch(side, run.windows[0], run.suite.batch_size)
            for name, side in sides.items()
        }
    known = {name: peak for name, peak in peaks.items() if peak is not None}
    if len(known) == len(peaks):
        run.facts["peak_bytes"] = known
    return {"timings": timings}


PROBE = Probe(
    name="latency",
    records={"timings": TIMINGS},
    measure=measure,
    needs_corpus=False,
    needs_same_tokens=False,
    times_reference=True,
    reach=lambda tokens: min(PROMPT_TOKENS, tokens) + STEPS,
)
