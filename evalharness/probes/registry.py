"""Probes by name, and a suite held against what they need."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from evalharness import probes
from evalharness.errors import nearest
from evalharness.probes.probe import Probe
from evalharness.run.records import register
from evalharness.spec.base import parse
from evalharness.spec.plugins import built_in_names, names, offered, refusal
from evalharness.spec.suite import Suite
from evalharness.spec.yamlfile import YamlFile

FOLDER = probes.__name__
OURS = "PROBE"


def probes_of(suite: Suite) -> list[Probe]:
    """The probes that ``suite`` names, which `check_probes` has checked."""
    return [_found(name) for name in suite.probes]


def check_probes(suite: Suite, file: YamlFile) -> None:
    """Raise `InputError` for a probe that is not known, or that the suite cannot feed.

    Settings of other packages' probes are checked here as well: only they know their keys.
    """
    for number, name in enumerate(suite.probes):
        at = ("probes", number)
        try:
            probe = _found(name)
        except KeyError:
            known = [*built_in_names(probes, OURS), *names("probes")]
            hint = nearest(name, known)
            remedy = hint[:1].upper() + hint[1:] if hint else f"Known: {', '.join(known)}."
            raise file.error(f"unknown probe {name!r}", at, remedy + refusal("probes")) from None
        if probe.needs_corpus and not suite.corpora:
            raise file.error(f"{name} needs a corpus to run on", at, "Add one under corpora.")
        if probe.refuses_other_tokens and suite.tokenizers == "different":
            raise file.error(f"{name} needs both sides to read the same tokens", at)
        given = suite.keys_of(name)
        if probe.settings is not None and not isinstance(given, probe.settings):
            parse(probe.settings, file, given or {}, at=(name,))
    watching = [p.name for p in probes_of(suite) if p.watch is not None]
    if len(watching) > 1:
        raise file.error(
            f"{' and '.join(watching)} would both watch the pass over texts, and one can",
            ("probes",),
            "Run them in two comparisons.",
        )


def _found(name: str) -> Probe:
    module = f"{FOLDER}.{name}"
    own = import_module(module) if name.isidentifier() and find_spec(module) else None
    probe = getattr(own, OURS, None)
    if isinstance(probe, Probe):
        return probe
    for known, offer in offered("probes", Probe):
        if known == name:
            for kind, schema in offer.records.items():
                register(kind, schema)
            return offer
    raise KeyError(name)
