"""What a transformers model is, as its configuration and class say: how attention reaches.

Held against the release that is installed by `tests/compat/test_transformers.py`.
"""

from __future__ import annotations

import re
from typing import Any

from evalharness.compat.transformers import settings_of

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
_ALIBI = {"bloom", "mpt"}


def is_encoder_decoder(model: Any) -> bool:
    """Whether the text goes through an encoder before it is continued."""
    return bool(getattr(model.config.get_text_config(), "is_encoder_decoder", False))


def carries_state(model: Any) -> bool:
    """Whether something other than attention hands information from token to token."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return bool(getattr(model, "_is_stateful", False) or set(kinds) - _ATTENTION)


def has_alibi(model: Any) -> bool:
    """Whether positions come as a bias on the attention scores."""
    config = model.config.get_text_config()
    return config.model_type in _ALIBI or bool(getattr(config, "alibi", False))


def attention_reach(model: Any) -> int | None:
    """Tokens that the narrowest attention of ``model`` reaches back; None: all of them."""
    config = model.config.get_text_config()
    if set(getattr(config, "layer_types", None) or ()) == {"full_attention"}:
        return None
    sizes = [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    return min((int(s) for s in sizes if isinstance(s, int)), default=None)


def is_own_architecture(model: Any) -> bool:
    """Whether the code of ``model`` is part of transformers; else it came with the files."""
    return type(model).__module__.startswith("transformers.models.")


# Sizes and ids. What else is a whole number may be how far attention reaches.
_SIZE = re.compile(
    r"vocab|hidden|intermediate|embd|embed|inner|ffn|mlp|head|layer|dim|rank|expert|state|group"
    r"|max_|_max|position|n_ctx|max_seq|d_model|d_ff|d_kv|_id$|_ids$|conv|bits|dtype|pretraining|beam|version"
)
_LEAST_WINDOW = 8  # tokens; a smaller number is a count of layers or the like, and is tried anyway


def possible_windows(model: Any) -> list[int]:
    """Whole numbers of the configuration that may be a window of attention, whatever their key."""
    found: set[int] = set()

    def look(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                look(str(name), part)
        elif isinstance(value, list | tuple):
            for part in value:
                look(key, part)
        elif type(value) is int and value > _LEAST_WINDOW and not _SIZE.search(key):
            found.add(value)

    look("", settings_of(model))
    return sorted(found)
