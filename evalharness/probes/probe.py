"""What a probe is: one object that says all there is to know of it.

A suite asks for a probe by name (``probes: [layers]``) and may give its settings under that name
(``layers: {windows: 32}``). Every module of this folder that holds a ``PROBE`` is one; other
packages offer theirs through the entry-point group ``evalharness.probes`` (see `spec.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evalharness.metrics import Evidence, Metric
from evalharness.report import Section
from evalharness.run.manifest import Manifest
from evalharness.spec.base import Spec
from evalharness.spec.suite import Suite

if TYPE_CHECKING:
    from evalharness.data.windows import Window
    from evalharness.pair.side import Side
    from evalharness.pair.watcher import Watcher
    from evalharness.progress import Progress


@dataclass(kw_only=True)
class ProbeRun:
    """What a probe works with: both models loaded, and the suite's windows.

    Attributes
    ----------
    reference, candidate : the two sides; ``side.hidden(ids)`` gives final hidden states, and
        ``side.model`` is the model itself.
    windows : of the suite, in a seeded random order of their documents.
    settings : the probe's own, as the suite gives them.
    calibration : windows of the text that the candidate was calibrated on; empty where it names
        none.
    watcher : what `Probe.watch` returned.
    apart : fresh processes in which it will be measured again (`Probe.apart`); 0: none.
    facts : put there what the manifest holds of it (see `run.manifest`).

    """

    reference: Side
    candidate: Side
    windows: list[Window]
    suite: Suite
    settings: Any
    calibration: list[Window]
    progress: Progress
    watcher: Watcher | None = None
    apart: int = 0
    facts: Manifest = field(default_factory=lambda: Manifest())


@dataclass(frozen=True, kw_only=True)
class Apart:
    """How a probe measures in fresh processes, each of which loads both models again.

    Attributes
    ----------
    processes : how many, from the probe's settings; 1 is the run's own, where `Probe.measure` does.
    request : what one of them must know beside the models, as JSON; None: there is nothing to do.
    measure : called there with the reference, the candidate, that, the number of the process from
        1, and what to call with a few words now and then; returns tables as `Probe.measure` does.

    """

    processes: Callable[[Any], int]
    request: Callable[[ProbeRun], Any]
    measure: Callable[[Side, Side, Any, int, Callable[[str], None]], Mapping[str, pa.Table]]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One probe.

    Attributes
    ----------
    name : as suites name it.
    records : the schema of each kind of record that it writes, by name.
    measure : called after the pass over texts; returns tables of these schemas, by name. None: it
        only watches.
    watch : returns what watches the pass over texts; of one probe only. It is shown as many windows
        as ``settings.windows`` says, spread evenly over the suite.
    settings : the model of its keys in a suite.
    metrics : computed from its records.
    section : of the report.
    summary : what `result.json` holds of it under ``extra``, from the records.
    block : the name that its records are written under.
    needs_corpus : a suite without texts is refused, and nothing is measured where none of them is
        long enough.
    needs_same_tokens : the probe is passed over where each side reads tokens of its own.
    refuses_other_tokens : such a suite is refused.
    reads_weights : the weights must be on the device, and not only visit it.
    reads_calibration : it is given the text that the candidate was calibrated on.
    holds_activations : one decoder layer's activations of the other side are kept meanwhile.
    times_reference : the reference must run, so its hidden states may not come from the cache.
    reach : how many positions it takes by its settings where windows have so many tokens; None: no
        more.
    apart : how it measures in fresh processes, after all else; None: it does not.

    """

    name: str
    records: Mapping[str, pa.Schema]
    measure: Callable[[ProbeRun], Mapping[str, pa.Table]] | None = None
    watch: Callable[[ProbeRun], Watcher] | None = None
    settings: type[Spec] | None = None
    metrics: tuple[Metric, ...] = ()
    section: Section | None = None
    summary: Callable[[Evidence], Any] | None = None
    block: str = ""
    needs_corpus: bool = True
    needs_same_tokens: bool = True
    refuses_other_tokens: bool = False
    reads_weights: bool = False
    reads_calibration: bool = False
    holds_activations: bool = False
    times_reference: bool = False
    reach: Callable[[int, Any], int] | None = None
    apart: Apart | None = None

    def __post_init__(self) -> None:
        if self.measure is None and self.watch is None:
            raise ValueError(f"probe {self.name!r} has neither measure nor watch")
        if self.watch is not None and "windows" not in getattr(self.settings, "model_fields", ()):
            raise ValueError(f"probe {self.name!r} watches, and its settings have no `windows`")

    def settings_in(self, suite: Suite) -> Any:
        """What ``suite`` says under the probe's name, with every default explicit."""
        given = suite.keys_of(self.name)
        if self.settings is None or isinstance(given, self.settings):
            return given
        return self.settings.model_validate({} if given is None else given)
