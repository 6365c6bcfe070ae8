"""Drives ONNX Runtime GenAI: chunks are appended, and each one's logits read before the next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


class Model:
    """One folder that the model builder wrote."""

    def __init__(self, options: dict[str, Any]) -> None:
        import onnxruntime_genai as genai  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self.genai = genai
        folder = Path(options["path"])
        found = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        self.chunk = int(options["chunk"])
        self.trained = int(found["context_length"])
        self.vocabulary = int(found["vocab_size"])
        config = genai.Config(str(folder))
        threads = int(options["threads"])
        session = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self.model = genai.Model(config)
        self.generator: Any = None
        self.count = 0  # tokens fed
        self.info = {
            "package": f"onnxruntime-genai {version('onnxruntime-genai')}",
            "runtime": _version("onnxruntime"),
            "trained_context": self.trained,
            "chunk": self.chunk,
            "threads": threads,
        }

    def rows(self, ids: list[int], first: int, chunk: int) -> Iterator[tuple[int, Any]]:
        """(start, logits (n, V)) of the positions from ``first`` on, chunk by chunk."""
        self.reset(len(ids))
        for start in range(0, len(ids), chunk):
            piece = ids[start : start + chunk]
            skipped = min(max(first - start, 0), len(piece))
            logits = self._fed(piece)
            if skipped < len(piece):
                yield start + skipped, logits[skipped:]

    def reset(self, tokens: int | None = None) -> None:
        """Begin a sequence of up to so many tokens."""
        if tokens is not None and tokens > self.trained:
            raise ValueError(
                f"a sequence of {tokens} tokens is longer than the {self.trained} of the model"
            )
        parameters = self.genai.GeneratorParams(self.model)
        # One more: a generator of full length takes no more tokens.
        most = self.trained if tokens is None else min(self.trained, tokens + 1)
        parameters.set_search_options(max_length=most)
        self.generator = self.genai.Generator(self.model, parameters)

    def extend(self, ids: list[int], chunk: int) -> Any:
        """Go on with the sequence by ``ids``; logits (1, V) after the last."""
        logits = None
        for start in range(0, len(ids), chunk):
            logits = self._fed(ids[start : start + chunk])[-1:]
        return logits

    def _fed(self, ids: list[int]) -> Any:
        self.generator.append_tokens(np.asarray([ids], dtype=np.int32))
        logits = self.generator.get_output("logits")[0]
        if logits.shape != (len(ids), self.vocabulary):
            raise ValueError(
                f"{len(ids)} tokens gave logits of shape {logits.shape}: build the model so that "
                "it gives those of every position (without prune_lm_head)"
            )
        return logits


def _version(package: str) -> str:
    try:
        return version(package)
    except Exception:
        return "within the package"


def load(options: dict[str, Any]) -> Model:
    """Load what ``options`` name; see the engine's page."""
    return Model(options)
