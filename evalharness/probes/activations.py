"""The probe ``activations``: weight error, ranges and outlier channels, calibration coverage."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from evalharness.probes.probe import Probe, ProbeRun
from evalharness.run.records import ACTIVATIONS, OUTLIERS, WEIGHTS
from evalharness.spec.suite import ActivationSettings


def measure(run: ProbeRun) -> Mapping[str, pa.Table]:
    """Read every weight once, and send the sampled windows once more through each side."""
    from evalharness.pair.matching import match
    from evalharness.probes.activation_sums import activations, sample
    from evalharness.probes.weights import weight_errors

    chosen, text = (
        sample(windows, run.settings.windows) for windows in (run.windows, run.calibration)
    )
    pairs, matching = match(run.reference.model, run.candidate.model)
    total = sum(len(w.ids) for w in (*chosen, *chosen, *text))
    with run.progress.count("tokens for activations", total, "tokens") as advance:
        errors, columns = weight_errors(run.reference, run.candidate, pairs)
        found = activations(run.reference, run.candidate, pairs, chosen, columns, text, advance)
    if run.watcher is None:
        run.facts["matching"] = matching.model_dump()
    return {"weights": errors, **found}


PROBE = Probe(
    name="activations",
    records={"weights": WEIGHTS, "activations": ACTIVATIONS, "outliers": OUTLIERS},
    settings=ActivationSettings,
    measure=measure,
    refuses_other_tokens=True,
    reads_weights=True,
    reads_calibration=True,
)
