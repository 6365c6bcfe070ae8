"""Baselines: a stored run's estimates that gates may be relative to, so that a limit can ratchet.

A baseline is one JSON file: the estimates, the hashes of what they were measured with, what the
means are made of by document and item, and a hash of all of it. Two runs compare only when those
hashes agree, or in the documents and items that both have; nothing of that is typed in by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evalharness.errors import InputError
from evalharness.gates.stored_outcomes import StoredOutcomes
from evalharness.metrics.paired import Outcomes
from evalharness.run.files import write_text
from evalharness.spec.estimate import Estimate
from evalharness.spec.policy import Gate, Policy

BASELINE_VERSION = 2
IDENTITY = {
    "data": "other data (scored tokens, their windows, prompts or targets differ)",
    "tokenizer": "another tokenizer",
    "metrics": "another version of the metrics",
}


_REMEDY = "`evalharness baseline save RUN` makes one."


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    baseline_version: int
    run: str
    identity: dict[str, str]
    metrics: list[Estimate]
    outcomes: StoredOutcomes = StoredOutcomes()  # from version 2 on
    digest: str = ""


@dataclass(frozen=True)
class StoredBaseline:
    """A baseline as read from its file."""

    path: str
    run: str
    identity: Mapping[str, str]
    estimates: tuple[Estimate, ...]
    kept: StoredOutcomes = field(default_factory=StoredOutcomes)

    def estimate(self, metric: str, scope: Mapping[str, str]) -> Estimate | None:
        """The stored estimate of ``metric`` in exactly ``scope``."""
        found = (e for e in self.estimates if e.id == metric and e.scope == dict(scope))
        return next(found, None)

    def outcomes(self, metric: str, scope: Mapping[str, str]) -> Outcomes | None:
        """What the stored mean of ``metric`` in exactly ``scope`` is made of, if it is kept."""
        try:
            return self.kept.find(metric, scope)
        except ValueError as error:
            raise InputError(
                f"is not a baseline: outcomes: {error}", path=self.path, remedy=_REMEDY
            ) from None


def save_baseline(
    path: str | Path,
    run: str,
    identity: Mapping[str, str],
    estimates: Iterable[Estimate],
    outcomes: StoredOutcomes | None = None,
) -> None:
    """Write the estimates of ``run`` to ``path``, through a temporary name.

    ``outcomes`` are what `collect` finds; without them no gate is judged document by document.
    Lower bounds are left out: a later run that measures the whole would look worse than it is.
    """
    missing = [key for key in IDENTITY if not identity.get(key)]
    if missing:
        raise ValueError(f"a baseline needs the hashes of: {', '.join(missing)}")
    path = Path(path)
    content = _File(
        baseline_version=BASELINE_VERSION,
        run=run,
        identity={key: identity[key] for key in IDENTITY},
        metrics=[one for one in estimates if not one.at_least],
        outcomes=outcomes or StoredOutcomes(),
    )
    data = json.loads(content.model_dump_json())
    data["digest"] = _digest(data)
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _digest(data: Mapping[str, Any]) -> str:
    """The SHA-256 of all that a file says, itself aside."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def load_baseline(path: str | Path) -> StoredBaseline:
    """Read a baseline."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such baseline", path=path, remedy=_REMEDY) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as a baseline ({error})", path=path) from None
    version = data.get("baseline_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > BASELINE_VERSION:
        raise InputError(
            f"is of version {version}, and this evalharness reads up to {BASELINE_VERSION}",
            path=path,
            remedy="Use the evalharness that wrote it, or a newer one.",
        )
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"is not a baseline: {where}: {first['msg']}", path=path, remedy=_REMEDY
        ) from None
    if (file.baseline_version > 1 or file.digest) and file.digest != _digest(data):
        raise InputError(
            "is not as it was saved: its content does not have the SHA-256 that it gives",
            path=path,
            key="digest",
            remedy="Take it from version control, or save it again from its run.",
        )
    return StoredBaseline(str(path), file.run, file.identity, tuple(file.metrics), file.outcomes)


def baseline_of(policy: Policy) -> StoredBaseline | None:
    """The baseline that ``policy`` names, or None; errors point at the policy's line."""
    if policy.baseline is None:
        return None
    try:
        return load_baseline(policy.baseline)
    except InputError as error:
        if policy.baseline_place is None:
            raise
        message = f"{error.path}: {error.message}"
        raise policy.baseline_place.error(message, remedy=error.remedy) from None


def refuse_incomparable(
    gate: Gate, baseline: StoredBaseline, identity: Mapping[str, str], *keys: str
) -> None:
    """Raise `InputError` unless the baseline and this run share the hashes ``keys``."""
    for key in keys:
        stored, present = baseline.identity.get(key), identity.get(key)
        if not stored or stored != present:
            shown = f"{(stored or 'none')[:12]} against {(present or 'none')[:12]}"
            raise gate.error(
                f"the baseline {baseline.path} is of {IDENTITY[key]}: {shown}",
                ("relative_to",),
                "Save a new one from a run with this suite: evalharness baseline save RUN.",
            )
