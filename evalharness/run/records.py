"""The raw evidence: what a row of each ``records/*.parquet`` holds.

Records are written one file a block of documents (``tokens-00003.parquet``), renamed into place, so
that a run which dies keeps every finished block. Every estimate can be computed again from them.
"""

from __future__ import annotations

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        # One number a source document, over all corpora: the cluster, but for those of one text.
        ("doc", pa.int32()),
        ("corpus", pa.string()),
        ("id", pa.string()),
        ("attributes", pa.string()),  # JSON object
        ("tokens", pa.int32()),  # tokens fed (windows overlap is counted once)
        ("scored_tokens", pa.int32()),
        ("bytes_ref", pa.int64()),  # UTF-8 bytes of the scored text; −1 unknown (token corpora)
        ("bytes_cand", pa.int64()),  # differs only where the tokenizers do
        ("nll_ref", pa.float64()),  # summed NLL of the scored tokens, nats
        ("nll_cand", pa.float64()),
    ]
)

TOKENS = pa.schema(
    [
        ("doc", pa.int32()),
        ("window", pa.int32()),
        ("position", pa.int32()),  # place of the predicted token in its document
        ("token", pa.int32()),  # the true next token
        ("nll_ref", pa.float32()),  # nats
        ("nll_cand", pa.float32()),
        ("kl", pa.float32()),  # KL(reference ‖ candidate), nats
        ("kl_reverse", pa.float32()),
        ("total_variation", pa.float32()),  # Σ|p − q| / 2 = 1 − Σ min(p, q)
        ("entropy_ref", pa.float32()),
        ("entropy_cand", pa.float32()),
        ("conf_ref", pa.float32()),  # probability of the top token
        ("conf_cand", pa.float32()),
        ("argmax_ref", pa.int32()),  # ties: lowest id
        ("argmax_cand", pa.int32()),
        ("top5_overlap", pa.int8()),  # 0…5
        ("max_abs", pa.float32()),  # max over vocabulary of |z′ − z|
        ("max_abs_token", pa.int32()),
        ("half_range", pa.float32()),  # (max Δ − min Δ)/2
    ]
)

SAME_TEXT = "text"  # the FIELD of items that ask the same; what follows is the first one's id

ITEMS = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),  # lm-eval's document id
        # FIELD:HASH where items share the passage in their field FIELD; else the document id.
        ("cluster", pa.string()),
        ("metric", pa.string()),
        ("score_ref", pa.float64()),
        ("score_cand", pa.float64()),
        ("binary", pa.bool_()),  # the score is right/wrong
        ("prompt_hash", pa.string()),
        ("target_hash", pa.string()),
        # Multiple choice only, else null: probability of the chosen answer among the choices.
        ("conf_ref", pa.float64()),
        ("conf_cand", pa.float64()),
        ("correct_ref", pa.bool_()),
        ("correct_cand", pa.bool_()),
        ("prompt", pa.string()),  # shortened, for the report
        ("target", pa.string()),
        ("answer_ref", pa.string()),
        ("answer_cand", pa.string()),
    ]
)

# Where a task's continuations are scored. A position that several of an item's continuations share
# is one row, so what depends on the token that follows is not here.
ITEM_TOKENS = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("cluster", pa.string()),  # as in ITEMS
        ("position", pa.int32()),  # place of the predicted token in prompt and continuation
        ("kl", pa.float32()),  # from here on as in TOKENS
        ("kl_reverse", pa.float32()),
        ("total_variation", pa.float32()),
        ("entropy_ref", pa.float32()),
        ("entropy_cand", pa.float32()),
        ("argmax_ref", pa.int32()),
        ("argmax_cand", pa.int32()),
        ("top5_overlap", pa.int8()),
        ("max_abs", pa.float32()),
        ("half_range", pa.float32()),
    ]
)

LAYERS = pa.schema(
    [
        ("layer", pa.string()),
        ("kind", pa.string()),  # block, linear, experts or router
        ("type", pa.string()),  # class name on the reference side
        ("error", pa.string()),  # total, own, inherited, own_on_clean
        ("doc", pa.int32()),
        ("tokens", pa.int32()),  # without position 0 and padding
        ("err_sq", pa.float64()),  # Σ‖Δh‖²
        ("ref_sq", pa.float64()),  # Σ‖h‖²
        ("update_sq", pa.float64()),  # Σ‖f(x) − x‖², blocks only, else null
        ("rel_bins", pa.list_(pa.int16())),  # sparse histogram over tokens of ‖Δh‖/‖h‖
        ("rel_counts", pa.list_(pa.int32())),
        ("cos_sum", pa.float64()),
        ("cos_bins", pa.list_(pa.int16())),  # sparse histogram of 1 − cosine
        ("cos_counts", pa.list_(pa.int32())),
        ("max_abs", pa.float64()),
        ("max_abs_position", pa.int32()),  # in the document
        ("max_abs_channel", pa.int32()),
        ("pos0_err_sq", pa.float64()),
        ("pos0_ref_sq", pa.float64()),
    ]
)

CHANNELS = pa.schema(  # the worst channels of a module's output, over a sample of a block's tokens
    [
        ("layer", pa.string()),
        ("error", pa.string()),
        ("tokens", pa.int32()),  # sampled
        ("channel", pa.int32()),
        ("err_sq", pa.float64()),  # Σ Δ² of this channel
        ("all_err_sq", pa.float64()),  # of all channels
    ]
)

ROUTING = pa.schema(  # mixture-of-experts: tokens sent to an expert
    [
        ("layer", pa.string()),  # the router
        ("doc", pa.int32()),
        ("expert", pa.int32()),
        ("tokens", pa.int32()),  # of the document, without position 0 and padding
        ("tokens_ref", pa.int32()),
        ("tokens_cand", pa.int32()),
        ("tokens_both", pa.int32()),  # sent to this expert by both sides
    ]
)

WEIGHTS = pa.schema(
    [
        ("layer", pa.string()),
        ("tensor", pa.string()),  # weight, or of fused experts its name and the expert
        ("kind", pa.string()),  # linear, embedding, experts or router
        ("storage_ref", pa.string()),
        ("storage_cand", pa.string()),
        ("rows", pa.int64()),  # outputs
        ("columns", pa.int64()),  # inputs
        ("bits_ref", pa.float64()),  # stored bits a weight, scales and zero points included
        ("bits_cand", pa.float64()),
        ("err_sq", pa.float64()),  # Σ (W̃ − W)²
        ("ref_sq", pa.float64()),
        ("max_abs", pa.float64()),
        ("max_abs_row", pa.int64()),
        ("max_abs_column", pa.int64()),
        ("reason", pa.string()),  # why there is no error; else null
    ]
)

ACTIVATIONS = pa.schema(  # the inputs of a linear, without position 0
    [
        ("layer", pa.string()),
        ("side", pa.string()),  # reference, candidate, or calibration: its text on the reference
        ("doc", pa.int32()),  # of the calibration text its own numbers
        ("values", pa.int64()),  # tokens × channels
        ("channels", pa.int32()),
        ("sum", pa.float64()),  # Σ x, Σ x², Σ x³, Σ x⁴
        ("sum_sq", pa.float64()),
        ("sum_cube", pa.float64()),
        ("sum_quad", pa.float64()),
        ("max_abs", pa.float64()),
        ("pos0_max_abs", pa.float64()),
        ("weighted_err_sq", pa.float64()),  # Σ_tokens ‖(W̃ − W) diag(x)‖²; else null
        ("weighted_ref_sq", pa.float64()),
        ("beyond_range", pa.int64()),  # values beyond the calibration's largest |x|; else null
        ("beyond_channel", pa.int64()),  # beyond its largest |x| of the same channel; else null
    ]
)

OUTLIERS = pa.schema(  # the channels of a linear's input that stand out, over all documents
    [
        ("layer", pa.string()),
        ("side", pa.string()),
        ("by", pa.string()),  # max (largest |x|) or energy (largest Σ x²)
        ("rank", pa.int32()),
        ("channel", pa.int32()),
        ("max_abs", pa.float64()),
        ("energy", pa.float64()),  # share of Σ x² over all channels
        ("top_energy", pa.float64()),  # share of the top 1% of the channels, at least one
        ("range_shift", pa.float64()),  # median over channels of |log₂ of max / calibration's max|
    ]
)

CKA = pa.schema(  # similarity of two blocks' hidden states, one row a minibatch
    [
        ("reference", pa.string()),  # block
        ("candidate", pa.string()),
        ("minibatch", pa.int32()),
        ("tokens", pa.int32()),
        ("hsic", pa.float64()),  # unbiased HSIC of the two, and of each with itself
        ("hsic_ref", pa.float64()),
        ("hsic_cand", pa.float64()),
    ]
)

CONTEXTS = pa.schema(
    [
        ("by", pa.string()),  # kl, half_range, max_abs or nll: what it is extreme in
        ("value", pa.float64()),
        ("doc", pa.int32()),
        ("position", pa.int32()),
        ("before", pa.string()),
        ("token", pa.string()),
        ("after", pa.string()),
        ("reference_top", pa.string()),
        ("candidate_top", pa.string()),
        ("p_reference", pa.float64()),
        ("p_candidate", pa.float64()),
    ]
)

SENSITIVITY = pa.schema(
    [
        ("module", pa.string()),  # "": nothing was changed; "*": all confirmed modules together
        ("what", pa.string()),  # gradient, swap, noise or restore
        ("doc", pa.int32()),
        ("tokens", pa.int32()),
        ("kl", pa.float64()),  # summed over the tokens, nats
    ]
)

TIMINGS = pa.schema(
    [
        ("kind", pa.string()),  # prefill or decode
        # The process that was timed, from 1; null in the pass itself, and where an earlier version
        # timed the decoding: in the run's own process, the reference first.
        ("process", pa.int32()),
        ("tokens", pa.int32()),
        ("seconds_ref", pa.float64()),
        ("seconds_cand", pa.float64()),
    ]
)

TASKS = pa.schema(
    [
        ("task", pa.string()),
        ("metric", pa.string()),
        ("reference", pa.float64()),  # lm-eval's own aggregate
        ("candidate", pa.float64()),
        ("higher_is_better", pa.bool_()),
        ("num_fewshot", pa.int32()),
    ]
)

GROUPS = pa.schema(  # lm-eval's aggregates over the leaves of a group
    [
        ("task", pa.string()),  # the group
        ("metric", pa.string()),
        ("reference", pa.float64()),
        ("candidate", pa.float64()),
        ("higher_is_better", pa.bool_()),
        ("items", pa.int64()),
        ("num_fewshot", pa.int32()),
        ("leaves", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),  # of each leaf's score in the aggregate; sum 1
    ]
)

ANOMALIES = pa.schema([("kind", pa.string()), ("message", pa.string())])

SCHEMAS = {
    "documents": DOCUMENTS,
    "tokens": TOKENS,
    "items": ITEMS,
    "item_tokens": ITEM_TOKENS,
    "layers": LAYERS,
    "channels": CHANNELS,
    "routing": ROUTING,
    "weights": WEIGHTS,
    "activations": ACTIVATIONS,
    "outliers": OUTLIERS,
    "cka": CKA,
    "contexts": CONTEXTS,
    "sensitivity": SENSITIVITY,
    "timings": TIMINGS,
    "tasks": TASKS,
    "groups": GROUPS,
    "anomalies": ANOMALIES,
}


def register(name: str, schema: pa.Schema) -> None:
    """Make a kind of record known that another package's probe writes."""
    if SCHEMAS.setdefault(name, schema) != schema:
        raise ValueError(f"records {name!r} have another schema already")


# The histograms of LAYERS: bin 0 is exactly zero (or below EDGE_MIN); then BINS_PER_OCTAVE bins a
# factor of two, from EDGE_MIN up, clipped at the last. A quantile read from them is within ±1.1%.
EDGE_MIN = 2.0**-40
BINS_PER_OCTAVE = 32
BINS = 44 * BINS_PER_OCTAVE + 1
