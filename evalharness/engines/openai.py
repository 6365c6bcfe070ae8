"""Servers with OpenAI's completions API: what they say of given token ids, over HTTP.

``model.base_url`` is the server's address, such as ``http://localhost:8000/v1``; its tokenizer is
``model.tokenizer``, or the one at ``model.path``, and is needed for nothing but to be held against
the reference's: ids go to the server as they are. ``model.options``:

    model           its name there; default: the only one that it lists
    api_key_env     the environment variable that holds the key; the key itself is written nowhere
    via             echo (`echo` and `logprobs`) or prompt_logprobs (vLLM's own parameter)
    top_logprobs    how many of the most likely tokens to ask for (20)
    timeout_s       seconds that an answer may take (120)
    retries         how often a request is sent again that had no answer (4)

A server gives the log-probability of the true token and of the most likely ones, not the
vocabulary: see `evalharness.pair.texts.statistics_partial` for what follows from these.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evalharness.engines.base import Parts, Say
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import resolve_tokenizer
from evalharness.engines.native import check_spec
from evalharness.errors import InputError, short
from evalharness.spec.model import ModelSpec
from evalharness.spec.result import CompressionManifest

if TYPE_CHECKING:
    import torch

NAME = "openai"
OPTIONS = {
    "model": str,
    "api_key_env": str,
    "via": str,
    "top_logprobs": int,
    "timeout_s": int,
    "retries": int,
}
VIA = ("echo", "prompt_logprobs")
TOP = 20  # what vLLM gives at most unless it is started with more
_LEAST = {"top_logprobs": 1, "timeout_s": 1, "retries": 0}
_MOST = {"top_logprobs": 1000, "timeout_s": 3600, "retries": 20}


def locate(spec: ModelSpec) -> Resolved:
    """Check the address and the options of ``spec``; nothing is asked of the server yet."""
    check_spec(spec, NAME, OPTIONS)
    for key in ("python", "chunk"):
        if getattr(spec.model, key) is not None:
            raise InputError(
                "is for engines that this machine runs, and this is a server",
                key=f"model.{key}",
                remedy="Leave it out.",
            )
    url = _address(spec.model.base_url)
    options = spec.model.options
    if options.get("via", VIA[0]) not in VIA:
        raise InputError(
            f"must be {' or '.join(VIA)} (got {short(options['via'])})", key="model.options.via"
        )
    for key, least in _LEAST.items():
        if not least <= options.get(key, least) <= _MOST[key]:
            raise InputError(
                f"must be from {least} to {_MOST[key]:,} (got {options[key]})",
                key=f"model.options.{key}",
            )
    _key(spec)
    resolve_tokenizer(_read_by(spec).model, Resolved("engine"))
    return Resolved("engine", name=url)


def load(spec: ModelSpec, found: Resolved, device: torch.device, progress: Say) -> Parts:
    """Ask the server for a few tokens; see `evalharness.engines.loading.load`."""
    from evalharness.engines.completions import Completions
    from evalharness.engines.fingerprint import tokenizer_fingerprint
    from evalharness.engines.native_model import NativeConfig
    from evalharness.engines.server_model import ServerModel
    from evalharness.engines.transformers import load_tokenizer

    tokenizer = load_tokenizer(_read_by(spec), found)
    options = spec.model.options
    server = Completions(
        spec.name,
        str(found.name),
        model=options.get("model"),
        key=_key(spec),
        via=options.get("via", VIA[0]),
        top=options.get("top_logprobs", TOP),
        timeout_s=options.get("timeout_s", 120),
        retries=options.get("retries", 4),
        vocabulary=len(tokenizer),
    )
    progress(f"asking {found.name} for log-probabilities")
    server.begin([i % len(tokenizer) for i in range(3, 11)])
    about: dict[str, Any] = {
        "name": NAME,
        "package": f"{found.name}, model {server.model}",
        "via": server.via,
        "top_logprobs": server.top,
    }
    config = NativeConfig(
        vocab_size=len(tokenizer), max_position_embeddings=server.context, engine=about
    )
    identity = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()
    manifest = CompressionManifest(
        name=spec.name,
        source=f"{found.name} ({server.model})",
        architecture=f"{NAME} ({server.model})",
        dtype="of the server's kernels",
        parameters=0,
        bits_per_weight=None,
        weight_bytes=None,
        ships="files",
        not_measured="a server shows no weights",
        activations="as the server has them",
        kv_cache="as the server's settings say",
        kernel="not known",
        groups=[],
        claimed=spec.manifest.model_dump(exclude_none=True)
        | {"engine": f"{NAME}: {about['package']}; top {server.top} by {server.via}"},
        fingerprint=identity,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        configuration_fingerprint=identity,
    )
    return Parts(ServerModel(config, server, device), tokenizer, None, manifest=manifest)


def _address(url: str | None) -> str:
    key = "model.base_url"
    if url is None:
        raise InputError(
            "required and missing: where the server is",
            key=key,
            remedy="Give its address, such as http://localhost:8000/v1.",
        )
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise InputError(
            f"must be an address such as http://localhost:8000/v1 (got {url!r})", key=key
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "must hold neither a password nor a query, which would be written into every run",
            key=key,
            remedy="Name the environment variable that holds the key with options.api_key_env.",
        )
    return url.rstrip("/")


def _key(spec: ModelSpec) -> str | None:
    """The key, from the environment and nowhere else."""
    name = spec.model.options.get("api_key_env")
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InputError(
            f"the environment variable {short(name)} holds no key",
            key="model.options.api_key_env",
            remedy="Name the variable, not the key, and export it.",
        )
    return key


def _read_by(spec: ModelSpec) -> ModelSpec:
    """``spec`` with the tokenizer named, wherever it is."""
    source = spec.model
    named = source.model_copy(update={"tokenizer": source.tokenizer or source.path})
    return spec.model_copy(update={"model": named})
