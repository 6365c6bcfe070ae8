"""Whether a suite takes more positions than the models have; asked before any is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evalharness.engines.file_headers import tensor_shapes
from evalharness.engines.hub import snapshot
from evalharness.engines.locate import read_json
from evalharness.engines.registry import find_model
from evalharness.errors import InputError
from evalharness.probes.registry import probes_of
from evalharness.spec.model import ModelSpec
from evalharness.workflow.plan import Job

# A learned embedding of positions, as GPT-2, OPT, GPT-Neo and GGUF files name it.
_TABLE = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?|position_embd)\.weight$")
_TABLES_OF_A_CONFIG = ("gptj", "codegen")  # computed for so many positions and looked up
_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")


def check_positions(job: Job) -> list[str]:
    """Raise `InputError` where a window ends beyond a position table; warn of untrained lengths.

    Likewise where a probe goes on beyond a window.
    """
    tokens = _longest(job)
    reached = {
        probe.name: probe.reach(tokens, probe.settings_in(job.suite))
        for probe in probes_of(job.suite)
        if probe.reach is not None
    }
    notes = [_check(spec, tokens, reached) for spec in (job.reference, job.candidate)]
    return [note for note in notes if note]


def _longest(job: Job) -> int:
    """At most so many tokens are in a window: no text has more of them than bytes, and a BOS."""
    held = (
        (t.text or "").encode("utf-8", "replace") if t.tokens is None else t.tokens
        for t in job.texts
    )
    return min(job.suite.window.tokens, 1 + max(map(len, held), default=0))


def _check(spec: ModelSpec, tokens: int, reached: Mapping[str, int]) -> str | None:
    found = find_model(spec)
    if found.kind == "engine":
        return None
    place = snapshot(found, spec.model)
    config: dict[str, Any] = {}
    if place.suffix != ".gguf":
        config = read_json(place / "config.json", "model.path")
        config |= config.get("text_config") or {}
    table, trained = _table(config, tensor_shapes(place, "model.path")), _stated(config)
    if table is not None and tokens > table:
        raise InputError(
            f"{spec.name} has {table:,} positions, and windows of this suite have up to "
            f"{tokens:,} tokens",
            key="window.tokens",
            remedy=f"Set window: {{tokens: {table}}} in the suite, or less.",
        )
    for probe, positions in reached.items():
        if table is not None and positions > table:
            raise InputError(
                f"{spec.name} has {table:,} positions, and the probe {probe} takes up to "
                f"{positions:,} with the windows of this suite",
                key="probes",
                remedy="Leave the probe out of the suite, or give it shorter windows.",
            )
    if table is None and trained is not None and tokens > trained:
        return (
            f"{spec.name} was made for {trained:,} tokens, as its config.json says, and windows of "
            f"this suite have up to {tokens:,}: what lies beyond is measured outside its training"
        )
    return None


def _table(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the model's position table that a text may use; None: it has none."""
    rows = [shape[0] for name, shape in shapes.items() if _TABLE.search(name) and len(shape) == 2]
    stated = _stated(config)
    if config.get("model_type") in _TABLES_OF_A_CONFIG and stated:
        rows.append(stated)
    # OPT's table has two rows more than it has positions.
    return min([*rows, *([stated] if rows and stated else [])], default=None)


def _stated(config: Mapping[str, Any]) -> int | None:
    found = (config.get(name) for name in _NAMES)
    return next((value for value in found if type(value) is int and value > 0), None)
