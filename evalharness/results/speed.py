"""How fast each side was: what its latency comes to in tokens and milliseconds."""

from __future__ import annotations

import numpy as np

from evalharness.metrics.cost import emulated
from evalharness.metrics.evidence import Evidence
from evalharness.spec.result import BothSides

TURNS = 2  # of each side on a batch: a row holds both


def speed(evidence: Evidence) -> dict[str, BothSides]:
    """Means over all that was timed, by what they are; nothing where it says nothing.

    Of the pass itself, and of runs of earlier versions, nothing is known but the seconds of a row.
    """
    manifest = evidence.run.manifest
    rows = evidence.timings
    rows = rows[rows["process"].notna()]
    seconds = rows[["seconds_ref", "seconds_cand"]].to_numpy(float)
    simulated = manifest["sides"]["candidate"].get("simulated") or emulated(evidence)
    nothing = simulated or manifest.get("not_measured")
    if nothing or not len(rows) or not (np.isfinite(seconds) & (seconds > 0)).all():
        return {}
    texts = manifest["suite"].get("latency", {}).get("batch_size", 1)
    found = {}
    for kind, what in (("prefill", "prefill"), ("decode", "decoding")):
        of = (rows["kind"] == kind).to_numpy()
        if not of.any():
            continue
        total, tokens = seconds[of].sum(0), float(rows["tokens"].to_numpy(float)[of].sum())
        if kind == "prefill":
            found["ms to the first token"] = _both(1e3 * total / (TURNS * of.sum()))
        else:
            found["ms a token after it"] = _both(1e3 * total * texts / tokens)
        found[f"tokens a second, {what}"] = _both(tokens / total)
    return found


def _both(values: np.ndarray) -> BothSides:
    return BothSides(reference=float(values[0]), candidate=float(values[1]))
