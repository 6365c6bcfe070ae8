"""Private and version-fragile parts of transformers."""

from __future__ import annotations

from typing import Any


def attention_of(model: Any) -> str:
    """Return the attention kernel that ``model`` computes with, such as ``sdpa``.

    transformers has a method to set it and none to read it.
    """
    return str(model.config._attn_implementation)
