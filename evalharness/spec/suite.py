"""``suites/*.yaml``: what is measured, on which texts and tasks, and how much of each."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from evalharness.spec.base import Spec, parse, unknown_key
from evalharness.spec.slices import RANGES, RESERVED
from evalharness.spec.yamlfile import YamlFile, load_yaml


class HubData(Spec):
    """A Hugging Face data set; every row is a document."""

    path: str
    name: str | None = None
    split: str = "test"
    text_key: str = "text"
    revision: str | None = None
    starts: str | None = Field(
        None, description="Regular expression of rows that begin a document; else each row is one."
    )

    @field_validator("starts")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        try:
            with warnings.catch_warnings(action="ignore"):  # of what a later Python may read so
                re.compile(value or "")
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"must be a regular expression ({error})") from None
        return value


class Corpus(Spec):
    """Documents: give exactly one of source, hub, path, tokens."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    source: str | None = Field(None, description="python:MODULE, prose inside a Python package.")
    hub: HubData | None = None
    path: str | None = Field(
        None, description="Text, JSONL or JSON files (a glob); relative to the file."
    )
    text_key: str = "text"
    tokens: str | None = Field(None, description=".npy of ids, or JSONL of {id, tokens}.")
    documents: int | None = Field(None, ge=1, description="A seeded sample of this many.")
    attributes: tuple[str, ...] = Field(
        (), description="JSONL keys or hub columns kept as document attributes, for slices."
    )
    labels: dict[str, str] = Field(
        default={}, description="Attributes that all of its documents share: {language: de}."
    )
    max_windows: int | None = Field(
        None, ge=1, description="Windows of one document, from its start."
    )

    @model_validator(mode="after")
    def _one(self) -> Corpus:
        given = [k for k in ("source", "hub", "path", "tokens") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "exactly one of source, hub, path, tokens must be given "
                f"(got {', '.join(given) or 'none'})"
            )
        for name in (*self.attributes, *self.labels):
            if name in RESERVED:
                raise ValueError(f"an attribute may not be called {name!r}: every document has one")
        kind, _, module = (self.source or "python:x").partition(":")
        if kind != "python" or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"source must be python:MODULE (got {self.source!r})")
        return self


class Windowing(Spec):
    """How documents are cut into windows, and which positions of a window are scored."""

    tokens: int = Field(512, ge=2)
    stride: int | None = Field(None, ge=1, description="Default: the window's length.")
    score: Literal["all", "second_half", "new"] = "all"
    min_tokens: int = Field(2, ge=2, description="Shorter documents are left out, and counted.")

    @model_validator(mode="after")
    def _stride(self) -> Windowing:
        if self.stride is not None and self.stride > self.tokens:
            raise ValueError(
                "stride must be at most tokens, or text is skipped "
                f"(got {self.stride} > {self.tokens})"
            )
        return self

    @property
    def step(self) -> int:
        """Tokens from one window's start to the next."""
        return self.stride or self.tokens


DEFAULT_TEMPLATE = "default"  # what transformers calls a tokenizer's only chat template


class Task(Spec):
    """An lm-eval task by name, or a task YAML by path."""

    name: str | None = None
    path: str | None = None
    limit: int | None = Field(None, ge=1, description="A seeded sample of this many items.")
    num_fewshot: int | None = Field(None, ge=0)
    apply_chat_template: bool | str = Field(
        False,
        description="Ask in the reference's chat template, both sides; of several, the one so "
        "named.",
    )
    system: str | None = Field(
        None, min_length=1, description="A system message; without a template, text before all."
    )
    fewshot_as_multiturn: bool | None = Field(
        None,
        description="Few-shot examples as turns of the conversation rather than one message; "
        "default: wherever a chat template is used.",
    )

    @model_validator(mode="after")
    def _one(self) -> Task:
        if (self.name is None) == (self.path is None):
            raise ValueError("exactly one of name and path must be given")
        if self.fewshot_as_multiturn and self.apply_chat_template is False:
            raise ValueError("fewshot_as_multiturn: true asks for apply_chat_template")
        return self

    @property
    def template(self) -> str | None:
        """The name of the chat template that prompts are put in; None: in none."""
        named = self.apply_chat_template
        return (DEFAULT_TEMPLATE if named else None) if isinstance(named, bool) else named


class Slice(Spec):
    """A named subset of documents or positions; or, with `by`, one a value of an attribute."""

    name: str | None = Field(None, min_length=1)
    where: dict[str, str] | None = Field(
        None,
        min_length=1,
        description="Attribute, corpus or id: a glob. position, or length in tokens: first:last, "
        "as 0:128.",
    )
    by: str | None = Field(
        None, min_length=1, description="An attribute: slices called language=de, language=en …"
    )

    @model_validator(mode="after")
    def _form(self) -> Slice:
        if self.by is not None:
            if self.name is not None or self.where is not None:
                raise ValueError("give name and where, or by alone")
            if self.by in (*RANGES, "id"):
                raise ValueError(f"by must be an attribute (got {self.by!r}); use where for ranges")
        elif self.name is None or self.where is None:
            raise ValueError("name and where must be given, or by")
        for key in RANGES:
            value = (self.where or {}).get(key)
            if value is not None and not re.fullmatch(r"\d*:\d*", value):
                raise ValueError(f"{key} must be first:last, as 0:128 (got {value!r})")
        return self


class NoiseFloor(Spec):
    """How the reference is run beside itself; a small sample of the suite's windows."""

    windows: int = Field(
        8,
        ge=1,
        description="Windows of the sample, of as many documents as there are. The floor of a "
        "signed metric such as nll.shift is an end of its interval over them: it takes two.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None,
        description="Compute the reference in this dtype as well; the floor is the larger of "
        "both. Another batch shape is always tried, with another attention kernel where the "
        "model has one.",
    )


class LayerSettings(Spec):
    """Per-layer error on a sample of windows."""

    windows: int = Field(16, ge=1, description="Windows probed, spread evenly over the suite.")
    linears: bool = Field(True, description="Every linear module as well as every block.")
    errors: tuple[Literal["total", "own", "inherited", "own_on_clean"], ...] = Field(
        ("total", "own", "inherited"),
        min_length=1,
        description="own, and inherited with it, cost another pass of the reference over the "
        "probed windows; own_on_clean one of the candidate.",
    )


class ActivationSettings(Spec):
    """Weight error, activation ranges, outlier channels, representativeness of calibration."""

    windows: int = Field(
        16,
        ge=1,
        description="Windows sent once more through each side, spread evenly over the suite, and "
        "as many of the candidate's calibration text through the reference.",
    )


class LatencySettings(Spec):
    """Seconds of prefill and of decoding, on beginnings of the suite's texts."""

    processes: int = Field(
        1,
        ge=1,
        description="Fresh processes that are timed, each of which loads both models again, after "
        "all else. A gate takes at least 3: what 1 (this run's own) shows may be its luck.",
    )
    batches: int = Field(8, ge=1, description="Batches timed in a process, twice on each side.")
    batch_size: int = Field(1, ge=1, description="Texts a batch.")
    prompt_tokens: int = Field(64, ge=1, description="Tokens of a prompt, where its text has them.")
    steps: int = Field(16, ge=1, description="Tokens decoded after a prompt.")

    @field_validator("processes")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value == 2:
            raise ValueError("must be 1, or at least 3, which an interval takes (got 2)")
        return value


class Suite(Spec):
    """What is measured; a key named like a probe that it lists holds that probe's settings."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"additionalProperties": {"type": "object"}}
    )

    version: Literal[1] = 1
    name: str = Field(min_length=1)
    seed: int = Field(0, ge=0, lt=2**63)
    corpora: tuple[Corpus, ...] = ()
    window: Windowing = Windowing()
    tasks: tuple[Task, ...] = ()
    probes: tuple[str, ...] = Field(
        (),
        description="layers, activations, latency, or a probe of an installed package, whose "
        "settings stand under its name.",
    )
    layers: LayerSettings = LayerSettings()
    activations: ActivationSettings = ActivationSettings()
    latency: LatencySettings = LatencySettings()
    slices: tuple[Slice, ...] = ()
    noise_floor: NoiseFloor = NoiseFloor()
    batch_size: int = Field(8, ge=1, description="Windows, and task requests, a batch; both sides.")
    tokenizers: Literal["same", "different"] = Field(
        "same",
        description="different: each side reads its own tokens; only bits per byte and tasks run.",
    )

    @field_validator("corpora", "slices")
    @classmethod
    def _names(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [v.name or f"by: {v.by}" for v in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the name {name!r} is given twice")
        return value

    @model_validator(mode="after")
    def _something(self) -> Suite:
        if not self.corpora and not self.tasks:
            raise ValueError("corpora or tasks must be given: there is nothing to measure")
        ids = [c.name for c in self.corpora if c.tokens is not None]
        if ids and self.tokenizers == "different":
            raise ValueError(
                f"corpus {ids[0]!r} is token ids, which two tokenizers cannot both read: give its "
                "text, or leave out `tokenizers: different`"
            )
        return self

    def keys_of(self, probe: str) -> Any:
        """What stands under a probe's name; None where nothing does."""
        named = (*type(self).model_fields, *(self.model_extra or {}))
        return getattr(self, probe) if probe in named else None


def load_suite(path: str | Path) -> Suite:
    """Read a suite; relative paths become absolute."""
    file = load_yaml(path)
    data: dict[str, Any] = dict(file.data)
    for kind, keys in (("corpora", ("path", "tokens")), ("tasks", ("path",))):
        entries = data.get(kind)
        if isinstance(entries, list):
            data[kind] = [_absolute(file, e, (kind, i), keys) for i, e in enumerate(entries)]
    suite = parse(Suite, file, data)
    for key in suite.model_extra or {}:
        if key not in suite.probes:
            raise unknown_key(Suite, file, (key,))
    return suite


def _absolute(file: YamlFile, entry: Any, at: tuple[str, int], keys: tuple[str, ...]) -> Any:
    if not isinstance(entry, dict):
        return entry
    entry = dict(entry)
    for key in keys:
        if isinstance(entry.get(key), str):
            try:
                found = expand(Path(os.path.abspath(file.named(entry[key], (*at, key)))))
            except (ValueError, OSError) as error:
                raise file.error(f"cannot be a file name ({error})", (*at, key)) from None
            if not found:
                raise file.error(f"no such file: {file.named(entry[key], ())}", (*at, key))
            for path in found:
                file.named(str(path), (*at, key))
            entry[key] = os.path.abspath(file.named(entry[key], ()))
    return entry


def expand(path: Path) -> list[Path]:
    """Files that ``path``, which may hold wildcards, stands for, in name order."""
    if path.exists():
        return [path]
    there = folder_of(path)
    return sorted(there.glob(str(path.relative_to(there))))


def folder_of(path: Path) -> Path:
    """The folder that ``path``, which may hold wildcards, is looked for in.

    Brackets in the name of a folder that is there are no wildcards.
    """
    return next(p for p in path.parents if p.exists())
