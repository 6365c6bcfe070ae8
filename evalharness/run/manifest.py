"""What ``manifest.json`` says: the inputs of a run, how it went, and the digests of its files."""

from __future__ import annotations

from typing import Any, TypedDict


class RecordedSide(TypedDict, total=False):
    """One side as it was loaded."""

    manifest: dict[str, Any]  # a `spec.result.CompressionManifest`
    simulated: bool  # its low bits are made from the weights at loading, and computed in full
    split: bool  # into backbone and head, so that its hidden states can be kept
    anomalies: list[str]  # why what was loaded is not what the files hold
    apart: str  # the engine that runs it in a process of its own, where one does
    top_logprobs: int  # that it gives of each position instead of logits, where it gives no more


class RecordedSlice(TypedDict):
    """One slice of the suite, with `by` written out."""

    name: str
    where: dict[str, str]


class RecordedPrompts(TypedDict):
    """How the items of a task are made into prompts."""

    chat_template: str | None  # the name of the reference's
    system: str | None
    fewshot_as_multiturn: bool


MANIFEST = "manifest.json"


class Manifest(TypedDict, total=False):
    """The keys of ``manifest.json``. A run that was begun has those of the first three groups."""

    format: int  # of the run directory

    # What decides every record's bits: a run of other inputs cannot be resumed into.
    reference: dict[str, Any]  # a `spec.model.ModelSpec` with every default, as is `candidate`
    candidate: dict[str, Any]
    suite: dict[str, Any]  # a `spec.suite.Suite` with every default
    texts: str  # SHA-256 of all documents, with their attributes, and of the calibration text
    task_data: dict[str, str]  # SHA-256 of documents, requests and configuration, by task
    task_prompts: dict[str, RecordedPrompts]  # by task
    token_stream: str  # SHA-256 of the tokens of all documents
    windows: str  # SHA-256 of the windows that they are cut into
    block_tokens: int  # about so many tokens of whole documents are a block of records
    weights: list[str]  # fingerprints: reference, candidate
    tokenizers: list[str]
    templates: list[str]  # SHA-256 of the chat templates
    settings: dict[str, dict[str, Any]]  # configuration and generation settings, by side
    versions: dict[str, str]  # of what computes, with the hardware
    stopping: dict[str, Any] | None  # the rule by which the pass may end early, as it was asked for
    stopping_policy: str | None  # SHA-256 of the policy, where it may end the pass early

    # How it began.
    identity: str  # SHA-256 of the inputs
    created: str  # ISO 8601, UTC
    evalharness: str  # version
    command: str
    resume: str  # the command that takes it up again
    sides: dict[str, RecordedSide]  # by "reference" and "candidate"
    model_files: dict[str, dict[str, list[int]]]  # size and time of change, by side and name
    slices: list[RecordedSlice]
    same_text: list[list[int]]  # numbers of documents that hold the same text, a list each
    shared_items: list[list[str]] | None  # tasks that have documents in common
    noise_floor: dict[str, float]  # by metric
    noise_floor_ways: dict[str, dict[str, float]]  # by what was changed, and metric
    noise_floor_missing: dict[str, str]  # by metric, why it has none
    matching: dict[str, Any] | None  # a `spec.module_results.Matching`
    blocks: int  # of texts
    stop_early: dict[str, Any] | None  # the rule with what it was tuned to and the looks taken
    compiled_statistics: bool
    environment: dict[str, str]
    warnings: list[str]  # grows until the end

    # How it went.
    seconds: dict[str, float]  # by phase
    peak_memory: int | None  # of the process, bytes
    peak_bytes: dict[str, int]  # of one batch, by side; CUDA alone
    not_measured: dict[str, str]  # why, by probe: what it should have measured and could not

    # What a bisect adds.
    sensitivity: dict[str, Any]
    repair: dict[str, Any]  # a `spec.result.Repair`

    # How it was finished.
    policy: str  # the policy's file
    policy_sources: list[str]  # that file, those it extends, and its baseline
    files: dict[str, str]  # SHA-256 of every other file, by its path in the run
    sha256: str  # of the manifest without this key
