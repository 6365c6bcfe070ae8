"""The probe ``layers``: per-layer error, from windows that go through both models in lock-step.

Models whose blocks have no counterpart have no error a layer; linear CKA is measured instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from evalharness.probes.probe import Probe, ProbeRun
from evalharness.run.records import CHANNELS, CKA, LAYERS, ROUTING
from evalharness.spec.suite import LayerSettings

if TYPE_CHECKING:
    from evalharness.pair.watcher import Watcher


def watch(run: ProbeRun) -> Watcher:
    """Watch every block, and the linears where the suite asks for them."""
    from evalharness.probes.layer_watcher import LayerWatcher

    settings = run.settings
    return LayerWatcher(run.reference, run.candidate, settings.linears, settings.errors)


def measure(run: ProbeRun) -> Mapping[str, pa.Table]:
    """Linear CKA, where no block has a counterpart."""
    from evalharness.probes.activation_sums import sample
    from evalharness.probes.cka import similarity

    if run.watcher is None or run.watcher.blocks:
        return {}
    chosen = sample(run.windows, run.settings.windows)
    total = sum(len(w.ids) for w in chosen)
    with run.progress.count("tokens for CKA", total, "tokens") as advance:
        return {"cka": similarity(run.reference, run.candidate, chosen, advance)}


PROBE = Probe(
    name="layers",
    records={"layers": LAYERS, "channels": CHANNELS, "routing": ROUTING, "cka": CKA},
    settings=LayerSettings,
    watch=watch,
    measure=measure,
    block="cka",
    holds_activations=True,
)
