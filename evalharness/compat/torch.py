"""Names that wrappers of torch and PEFT put into the names of the modules they wrap."""

from __future__ import annotations

import re

# torch.compile, FSDP, activation checkpointing, DataParallel; PEFT. Multimodal models keep their
# text model under `language_model.`.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:base_model\.model\.|_orig_mod\.|_fsdp_wrapped_module\."
    r"|_checkpoint_wrapped_module\.|module\.|language_model\.)"
)


def without_wrappers(name: str) -> str:
    """The name that a module has in the model as it was before it was wrapped."""
    return _WRAPPERS.sub("", name)
