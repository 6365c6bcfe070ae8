"""Private and version-fragile parts of the gguf library, and of how transformers uses it.

transformers 5 parses a file's table of 50,000 tokens once for the configuration, again for the
weights and again for the tokenizer, 4 s each, and builds the table of tensor names anew for every
module, another 5 s. `read_once` keeps both for the length of one load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


def is_installed() -> bool:
    """Whether GGUF files can be read here."""
    return find_spec("gguf") is not None


@contextmanager
def read_once() -> Iterator[None]:
    """Within the block, parse each GGUF file and build each table of tensor names once.

    transformers looks both names up in the module when it needs them, which is where they are
    replaced.
    """
    import gguf

    module: Any = gguf
    plain, names = module.GGUFReader, module.get_tensor_name_map
    if hasattr(plain, "cache_clear"):  # inside another such block
        yield
        return

    class Reader(plain):  # type: ignore[misc, valid-type]
        """Slices a plain array: slicing np.memmap takes three times as long."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    module.GGUFReader, module.get_tensor_name_map = cache(Reader), cache(names)
    try:
        yield
    finally:
        module.GGUFReader, module.get_tensor_name_map = plain, names


def same_data(path: Path, one: str, other: str) -> bool:
    """Whether two tensors of a file, named in it, have the same bytes."""
    from gguf import GGUFReader

    data = {t.name: t.data for t in GGUFReader(path).tensors if t.name in (one, other)}
    return bool(np.array_equal(data[one], data[other]))
