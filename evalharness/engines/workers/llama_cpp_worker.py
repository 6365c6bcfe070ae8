"""Drives llama.cpp: `llama-cpp-python`, or `xllamacpp` by the declarations of `llama-cpp-py-sync`.

Logits of a chunk are copied out before the next is decoded, so that memory is O(chunk × V).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "bf16": 30}
LEAST_CONTEXT = 512  # tokens; more are held once a sequence needs them
NEEDS = (
    "Run: pip install xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548 cffi, "
    "or: pip install llama-cpp-python"
)


class Bindings:
    """The few functions that are needed, of either package."""

    def __init__(self) -> None:
        if importlib.util.find_spec("llama_cpp") is not None:
            self._ctypes()
        else:
            self._cffi()
        self.lib.llama_backend_init()

    def _ctypes(self) -> None:
        import llama_cpp  # type: ignore[import-not-found]

        self.lib: Any = llama_cpp
        self.null = None
        self.package = f"llama-cpp-python {version('llama-cpp-python')}"

    def _cffi(self) -> None:
        core = importlib.util.find_spec("xllamacpp")
        folder = importlib.util.find_spec("llama_cpp_py_sync")
        if core is None or folder is None or core.origin is None or folder.origin is None:
            raise LookupError(f"llama.cpp is not installed in this Python. {NEEDS}")
        # Its own package would load a library of its own, which wants a newer C library.
        path = Path(folder.origin).with_name("_cffi_bindings.py")
        spec = importlib.util.spec_from_file_location("_evalharness_llama_declarations", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.ffi = module.get_ffi()
        shared = next(iter(sorted(Path(core.origin).parent.glob("xllamacpp*.so"))), None)
        if shared is None:
            raise LookupError(f"no shared library beside {core.origin}. {NEEDS}")
        self.lib = self.ffi.dlopen(str(shared))
        self.null = self.ffi.NULL
        names = [version("xllamacpp"), version("llama-cpp-py-sync")]
        self.package = f"xllamacpp {names[0]} by the declarations of llama-cpp-py-sync {names[1]}"
        if names[0].rsplit(".", 1)[-1][:-2] != names[1].rsplit(".", 1)[-1][:-2]:
            raise LookupError(
                f"xllamacpp {names[0]} and llama-cpp-py-sync {names[1]} are of builds that are far "
                f"apart: the layout of structures may differ. {NEEDS}"
            )

    def text(self, value: Any) -> str:
        """A C string as Python's."""
        raw = value if isinstance(value, bytes) else self.ffi.string(value)
        return str(raw.decode("utf-8", "replace"))

    def array(self, pointer: Any, rows: int, columns: int) -> Any:
        """A copy (rows, columns) of what is at ``pointer``."""
        if hasattr(self, "ffi"):
            flat = np.frombuffer(self.ffi.buffer(pointer, rows * columns * 4), np.float32)
        else:
            flat = np.ctypeslib.as_array(pointer, (rows * columns,))
        return flat.reshape(rows, columns)


class Model:
    """One GGUF file in one context."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.c = c = Bindings()
        lib = c.lib
        self.chunk = int(options["chunk"])
        self.threads = int(options["threads"])
        wanted = lib.llama_model_default_params()
        wanted.n_gpu_layers = int(options.get("n_gpu_layers", 0))
        self.model = lib.llama_model_load_from_file(os.fsencode(options["path"]), wanted)
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {options['path']}")
        self.vocabulary = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model)))
        self.trained = int(lib.llama_model_n_ctx_train(self.model))
        self.options = options
        self.context: Any = None
        self.size = 0  # tokens that the context can hold
        self.held: list[int] = []  # tokens that it holds
        self.whole = (0, 0)  # the size of whole chunks among them, and their tokens
        self._hold(min(LEAST_CONTEXT, self.trained))
        self.batch = lib.llama_batch_init(self.chunk, 0, 1)
        self.info = {
            "package": c.package,
            "build": c.text(lib.llama_print_system_info()).strip(),
            "trained_context": self.trained,
            "chunk": self.chunk,
            "threads": self.threads,
            "kv": str(options.get("kv", "f16")),
            "flash_attention": bool(options.get("flash_attention", False)),
            "n_gpu_layers": int(wanted.n_gpu_layers),
        }

    def rows(self, ids: list[int], first: int, chunk: int) -> Iterator[tuple[int, Any]]:
        """(start, logits (n, V)) of the positions from ``first`` on, chunk by chunk.

        What a sequence shares with the last one is kept, in whole chunks: each is then computed in
        the shape that it would have alone.
        """
        self._hold(len(ids))
        for start in range(self._keep(ids, first, chunk), len(ids), chunk):
            piece = ids[start : start + chunk]
            skipped = min(max(first - start, 0), len(piece))
            logits = self._decode(piece, skipped)
            if len(piece) == chunk:
                self.whole = (chunk, start + chunk)
            if logits is not None:
                yield start + skipped, logits

    def _keep(self, ids: list[int], first: int, chunk: int) -> int:
        """Forget all but what ``ids`` begin with too; returns how many tokens that is."""
        size, held = self.whole
        kept = 0
        if size == chunk:
            pairs = enumerate(zip(self.held[:held], ids, strict=False))
            same = next((i for i, (a, b) in pairs if a != b), min(held, len(ids)))
            kept = min(same, first, len(ids) - 1) // chunk * chunk
        lib = self.c.lib
        memory = lib.llama_get_memory(self.context)
        if kept and lib.llama_memory_seq_rm(memory, 0, kept, -1):
            self.held, self.whole = self.held[:kept], (chunk, kept)
            return kept
        self.reset()
        return 0

    def reset(self) -> None:
        """Forget the sequence."""
        self.c.lib.llama_memory_clear(self.c.lib.llama_get_memory(self.context), True)
        self.held, self.whole = [], (0, 0)

    def extend(self, ids: list[int], chunk: int) -> Any:
        """Go on with the sequence by ``ids``; logits (1, V) after the last."""
        self.whole = (0, 0)
        if len(self.held) + len(ids) > self.size:
            again = self.held
            self._hold(len(again) + len(ids))
            for start in range(0, len(again), chunk):
                piece = again[start : start + chunk]
                self._decode(piece, len(piece))
        logits = None
        for start in range(0, len(ids), chunk):
            piece = ids[start : start + chunk]
            last = start + len(piece) == len(ids)
            logits = self._decode(piece, len(piece) - 1 if last else len(piece))
        return logits

    def _hold(self, tokens: int) -> None:
        """Make a context of at least ``tokens`` tokens, where this one is smaller."""
        if tokens <= self.size:
            return
        if tokens > self.trained:
            raise ValueError(
                f"a sequence of {tokens} tokens is longer than the {self.trained} of the model"
            )
        lib = self.c.lib
        if self.context:
            lib.llama_free(self.context)
        size = min(self.trained, max(tokens, 2 * self.size))
        chunk = min(self.chunk, size)
        p = lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = size, chunk, chunk, 1
        p.n_threads = p.n_threads_batch = self.threads
        p.type_k = p.type_v = KV_TYPES[str(self.options.get("kv", "f16"))]
        p.flash_attn_type = int(bool(self.options.get("flash_attention", False)))
        p.offload_kqv = p.op_offload = int(self.options.get("n_gpu_layers", 0)) != 0
        self.context = lib.llama_init_from_model(self.model, p)
        if not self.context:
            raise ValueError(f"llama.cpp cannot make a context of {size} tokens")
        said = {
            "n_ctx": int(lib.llama_n_ctx(self.context)),
            "n_batch": int(lib.llama_n_batch(self.context)),
            "n_threads": int(lib.llama_n_threads(self.context)),
        }
        # n_ctx is rounded up to a multiple of 256.
        fits = size <= said["n_ctx"] < size + 256
        if not fits or said["n_batch"] != chunk or said["n_threads"] != self.threads:
            raise ValueError(
                f"llama.cpp was asked for a context of {size} tokens, chunks of {chunk} and "
                f"{self.threads} threads and says {said}: {self.c.package} do not fit each "
                f"other. {NEEDS}"
            )
        self.size, self.held, self.whole = size, [], (0, 0)

    def _decode(self, ids: list[int], skipped: int) -> Any:
        batch, at = self.batch, len(self.held)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = at + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i >= skipped
        code = self.c.lib.llama_decode(self.context, batch)
        if code != 0:
            raise ValueError(f"llama_decode gave {code} at token {at} of a sequence")
        self.held += ids
        count = len(ids) - skipped
        if count == 0:
            return None
        return self.c.array(self.c.lib.llama_get_logits(self.context), count, self.vocabulary)


def load(options: dict[str, Any]) -> Model:
    """Load what ``options`` name; see the engine's page."""
    return Model(options)
