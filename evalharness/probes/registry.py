"""Probes by name, and a suite held against what they need."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pyarrow as pa

from evalharness import probes
from evalharness.errors import EvalHarnessError, RunError, nearest
from evalharness.probes.probe import Probe, ProbeRun
from evalharness.run.records import register
from evalharness.spec.base import parse, unknown_key
from evalharness.spec.plugins import built_in_names, names, offered, refusal, reject
from evalharness.spec.suite import Suite
from evalharness.spec.yamlfile import YamlFile

FOLDER = probes.__name__
OURS = "PROBE"


def probes_of(suite: Suite) -> list[Probe]:
    """The probes that ``suite`` names, which `check_probes` has checked."""
    return [_found(name) for name in suite.probes]


def probe_named(name: str) -> Probe:
    """The probe of that name, which `check_probes` has checked."""
    return _found(name)


def watched_windows(suite: Suite) -> int:
    """How many windows the probe that watches the pass samples; 0 where none does."""
    watching = [probe for probe in probes_of(suite) if probe.watch is not None]
    return sum(probe.settings_in(suite).windows for probe in watching)


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
        if probe.settings is None and given is not None:
            raise unknown_key(Suite, file, (name,))
        if probe.settings is not None and not isinstance(given, probe.settings):
            parse(probe.settings, file, {} if given is None else given, at=(name,))
    watching = [p.name for p in probes_of(suite) if p.watch is not None]
    if len(watching) > 1:
        raise file.error(
            f"{' and '.join(watching)} would both watch the pass over texts, and only one can",
            ("probes",),
            "Run them in two comparisons.",
        )


def _ours(name: str) -> Probe | None:
    module = f"{FOLDER}.{name}"
    own = import_module(module) if name.isidentifier() and find_spec(module) else None
    probe = getattr(own, OURS, None)
    return probe if isinstance(probe, Probe) else None


def _found(name: str) -> Probe:
    own = _ours(name)
    if own is not None:
        return own
    for known, offer in offered("probes", Probe):
        if known != name:
            continue
        try:
            if offer.name != name:
                raise ValueError(f"the probe that it offers is called {offer.name!r}")
            if name in Suite.model_fields:
                raise ValueError("a suite has a key of that name")
            for kind, schema in offer.records.items():
                register(kind, schema)
        except ValueError as error:
            reject("probes", name, str(error))
            break
        return offer
    raise KeyError(name)


def measured(probe: Probe, run: ProbeRun) -> dict[str, pa.Table]:
    """What ``probe`` measures, as tables of the schemas that it names.

    Raises
    ------
    RunError : a probe of another package raised, or returned something else.

    """
    assert probe.measure is not None
    if _ours(probe.name) is probe:
        return dict(probe.measure(run))
    try:
        tables = dict(probe.measure(run))
        for kind, table in tables.items():
            if kind not in probe.records:
                raise ValueError(f"it returned records {kind!r}, which it does not name")
            tables[kind] = table.cast(probe.records[kind])
    except EvalHarnessError:
        raise
    except Exception as error:  # whatever the package raises
        why = f"{type(error).__name__}: {error}"
        raise RunError(f"the probe {probe.name!r} of another package failed: {why}") from error
    return tables
