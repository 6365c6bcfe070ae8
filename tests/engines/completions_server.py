"""A completions server on loopback whose log-probabilities come from a real tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

Change = Callable[[dict[str, Any]], Any]


class Server:
    """Answers as vLLM does; ``change`` spoils an answer, ``fail`` gives a status instead of one."""

    def __init__(self, model: Any, listed: list[str]) -> None:
        self.model, self.listed = model, listed
        self.change: Change = lambda answer: answer
        self.fail: Callable[[int], int] = lambda number: 200
        self.key: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.most = 1000  # log-probabilities
        self.url = ""

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        ids = body["prompt"]
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0].double()
        log = torch.log_softmax(logits, -1)
        k = min(self.most, body.get("logprobs") or body.get("prompt_logprobs") or 0)
        likely: list[dict[int, float] | None] = [None]
        for row, token in zip(log[:-1], ids[1:], strict=True):
            top = row.topk(min(k, len(row))).indices.tolist()
            likely.append({t: float(row[t]) for t in (token, *top)})
        said = int(log[-1].argmax())
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length"}
        if body.get("echo"):
            likely.append({said: float(log[-1, said])})
            named = [f"token_id:{t}" for t in (*ids, said)]
            choice["logprobs"] = {
                "tokens": named,
                "token_logprobs": [
                    None if e is None else e[t] for e, t in zip(likely, (*ids, said), strict=True)
                ],
                "top_logprobs": [e and {f"token_id:{t}": v for t, v in e.items()} for e in likely],
                "text_offset": [0] * len(named),
            }
        elif "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [
                e
                and {str(t): {"logprob": v, "rank": 1, "decoded_token": "?"} for t, v in e.items()}
                for e in likely
            ]
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        return {"object": "text_completion", "choices": [choice], "usage": usage}


@contextmanager
def serving(model: Any, listed: tuple[str, ...] = ("tiny",)) -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server(model, list(listed))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": n, "max_model_len": 256} for n in server.listed]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            status = server.fail(len(server.asked))
            if status != 200:
                sent = self.headers.get("Authorization", "")
                self._answer({"error": f"no, {sent}"}, status)
            elif body.get("prompt"):
                self._answer(server.change(server.answer(body)))

        def _answer(self, found: Any, status: int = 200) -> None:
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                sent = self.headers.get("Authorization", "")
                found, status = {"error": f"key {sent} is not known"}, 401
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status in (302, 503):
                self.send_header("Location", server.url + "/elsewhere")
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}/v1"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
