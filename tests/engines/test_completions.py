"""A client of the completions API: what is believed of an answer, and what is refused."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalharness.engines.completions import Completions
from evalharness.engines.registry import find_model
from evalharness.errors import InputError, RunError
from evalharness.spec.model import ModelSpec
from tests.engines.completions_server import Server, serving
from tests.engines.conftest import tiny

IDS = [5, 17, 200, 3, 3, 99]
VIA = ("echo", "prompt_logprobs")


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    with serving(tiny(dtype=torch.float32)) as server:
        yield server


@pytest.fixture
def server(alone: Server) -> Server:
    """The module's server, sound again."""
    alone.change, alone.fail, alone.key = (lambda answer: answer), (lambda number: 200), None
    alone.most, alone.listed = 1000, ["tiny"]
    alone.asked.clear()
    return alone


def client(server: Server, **options: Any) -> Completions:
    return Completions("served", server.url, **{"vocabulary": 256, "retries": 1, **options})


def refused(server: Server, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        client(server, **options).begin(IDS)
    return str(caught.value)


def logprobs(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["choices"][0]["logprobs"]
    return found


@pytest.mark.parametrize("via", VIA)
def test_the_true_token_comes_first_and_the_likeliest_follow(server: Server, via: str) -> None:
    """With the log-probabilities of the model itself, whichever way they are asked for."""
    asked = client(server, via=via, top=7)
    asked.begin(IDS)
    (rows,) = asked.rows(IDS, 2)
    with torch.inference_mode():
        log = torch.log_softmax(server.model(torch.tensor([IDS])).logits[0].double(), -1)
    assert rows.shape == (3, 8, 2)
    for row, at in zip(rows, (2, 3, 4), strict=True):
        true = IDS[at + 1]
        likely = [t for t in log[at].topk(7).indices.tolist() if t != true]
        expected = [true, *likely]
        kept = row[row[:, 0] >= 0]
        assert kept[:, 0].astype(int).tolist() == expected
        np.testing.assert_allclose(kept[:, 1], log[at][expected].numpy(), atol=1e-12)
        assert (row[len(kept) :, 1] == -math.inf).all()


def test_the_only_model_is_found_with_its_context(server: Server) -> None:
    """One token less than it takes: one is generated."""
    asked = client(server)
    asked.begin(IDS)
    assert (asked.model, asked.context) == ("tiny", 255)
    assert server.asked[0]["prompt"] == IDS


@pytest.mark.parametrize(
    ("listed", "named", "said"),
    [
        (["a", "b"], None, "has no single model (it lists: a, b)"),
        ([], None, "has no single model (it lists: none)"),
        (["a"], "c", "does not list 'c' (it lists: a)"),
    ],
)
def test_another_model_is_not_taken_in_silence(
    server: Server, listed: list[str], named: str | None, said: str
) -> None:
    """The message names those that there are."""
    server.listed = listed
    assert said in refused(server, model=named)


Spoil = Callable[[dict[str, Any]], Any]


def in_echo(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        change(logprobs(answer))
        return answer

    return spoil


def only_the_answer(parts: dict[str, Any]) -> None:
    for key in parts:
        parts[key] = parts[key][-1:]


def cut(parts: dict[str, Any]) -> None:
    for key in parts:
        parts[key] = parts[key][2:]


def begun_with_another(parts: dict[str, Any]) -> None:
    for key in parts:
        parts[key] = [parts[key][0], parts[key][0], *parts[key][1:]]


def exchanged(parts: dict[str, Any]) -> None:
    for key in parts:
        parts[key][1], parts[key][2] = parts[key][2], parts[key][1]


def by_text(parts: dict[str, Any]) -> None:
    parts["tokens"] = [" the"] * len(parts["tokens"])


def without_one(parts: dict[str, Any]) -> None:
    parts["token_logprobs"][3] = None


def without_likely(parts: dict[str, Any]) -> None:
    parts["top_logprobs"][3] = None


def shorter_list(parts: dict[str, Any]) -> None:
    parts["top_logprobs"].pop()


def another_number(parts: dict[str, Any]) -> None:
    parts["token_logprobs"][2] -= 0.5


def no_logarithm(parts: dict[str, Any]) -> None:
    parts["token_logprobs"][2] = 0.7


def hot(parts: dict[str, Any]) -> None:
    for at in range(1, len(parts["tokens"])):
        parts["token_logprobs"][at] /= 3
        parts["top_logprobs"][at] = {k: v / 3 for k, v in parts["top_logprobs"][at].items()}


def chat(parts: dict[str, Any]) -> None:
    parts["content"] = parts.pop("tokens")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (only_the_answer, "ignores `echo`: of the 6 tokens sent it says nothing"),
        (cut, "echoes 5 tokens where 6 were sent"),
        (begun_with_another, "echoes 8 tokens where 6 were sent"),
        (exchanged, "has token 200 at position 1, where 17 was sent"),
        (by_text, "names the token at position 0 ' the', not by its id"),
        (without_one, "drops the log-probability at position 3: None"),
        (without_likely, "drops the log-probabilities at position 3: None"),
        (shorter_list, "drops log-probabilities: it gives 7 tokens, 7 and 6"),
        (another_number, "at position 2 two log-probabilities"),
        (no_logarithm, "gives 0.7 at position 2, which is no log-probability"),
        (hot, "gives probabilities at position 1 that add up to"),
        (chat, "gives no lists of tokens and log-probabilities (it has: content, "),
    ],
)
def test_an_answer_that_is_not_about_the_ids_is_refused(
    server: Server, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    """Each with what was found, though the status is 200."""
    server.change = in_echo(change)
    assert said in refused(server, top=100)


def spoiled(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        change(answer)
        return answer

    return spoil


@pytest.mark.parametrize(
    ("via", "change", "said"),
    [
        ("echo", spoiled(lambda a: a.update(choices=[])), "answers with [] where one choice"),
        ("echo", spoiled(lambda a: a["choices"].append({})), "where one choice was asked for"),
        ("echo", spoiled(lambda a: a["choices"][0].pop("logprobs")), "gives no log-probabilities"),
        (
            "echo",
            spoiled(lambda a: a["usage"].update(prompt_tokens=7)),
            "read 7 tokens where 6 were sent",
        ),
        ("echo", lambda a: b"<html>a proxy</html>", "answers with '<html>a proxy</html>', no JSON"),
        ("echo", lambda a: [a], "no JSON object"),
        (
            "prompt_logprobs",
            spoiled(lambda a: a["choices"][0].pop("prompt_logprobs")),
            "gives no prompt_logprobs",
        ),
        (
            "prompt_logprobs",
            spoiled(lambda a: a["choices"][0]["prompt_logprobs"].pop()),
            "gives prompt_logprobs of 5 tokens where 6 were sent",
        ),
        (
            "prompt_logprobs",
            spoiled(lambda a: a["choices"][0]["prompt_logprobs"][2].pop("200")),
            "gives no log-probability of token 200, which is at position 2",
        ),
        (
            "prompt_logprobs",
            spoiled(lambda a: a["choices"][0]["prompt_logprobs"].__setitem__(4, None)),
            "drops the log-probabilities at position 4",
        ),
    ],
)
def test_an_answer_of_another_shape_is_refused(
    server: Server, via: str, change: Spoil, said: str
) -> None:
    """Whatever a server or a proxy before it sends."""
    server.change = change
    assert said in refused(server, via=via)


def test_fewer_than_asked_for_names_the_option(server: Server) -> None:
    """A server has a most of its own, and some keep silent about it."""
    server.most = 5
    error = refused(server, top=20)
    assert "where 20 were asked for" in error
    assert "model.options.top_logprobs" in error


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "status 400"),
        (403, "Name the environment variable that holds the key"),
        (404, "ends in /v1"),
        (302, "a key is not sent on"),
    ],
)
def test_a_status_that_stays_is_wrong_input(server: Server, status: int, said: str) -> None:
    """Asked once: it would be no other the second time."""
    server.fail = lambda number: status
    assert said in refused(server)
    assert len(server.asked) == 1


def test_a_server_that_keeps_failing_is_asked_so_often(server: Server) -> None:
    """And then the run could not finish."""
    server.fail = lambda number: 503
    with pytest.raises(RunError, match=r"in 3 attempts: status 503"):
        client(server, retries=2).begin(IDS)
    assert len(server.asked) == 3


def test_nobody_there_is_no_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between the attempts grow, to a bound."""
    waits: list[float] = []
    monkeypatch.setattr("evalharness.engines.completions.time.sleep", waits.append)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(RunError, match=r"no answer from .*/models in 9 attempts"):
        Completions("served", url, vocabulary=256, retries=8).begin(IDS)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_no_answer_in_time_is_asked_again() -> None:
    """A server that takes a connection and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        asked = Completions("served", url, vocabulary=256, retries=0, timeout_s=0.1)
        with pytest.raises(RunError, match=r"timed out|TimeoutError"):
            asked.begin(IDS)


def test_the_key_that_a_server_sends_back_is_not_shown(server: Server) -> None:
    """Neither in what is refused nor in what is asked again."""
    server.fail = lambda number: 400
    error = refused(server, key="sk-hidden")
    assert "Bearer …" in error
    assert "sk-hidden" not in error


def written(saved: Path, **model: Any) -> ModelSpec:
    source = {"path": str(saved), "engine": "openai", "base_url": "http://localhost:8000/v1"}
    return ModelSpec.model_validate({"name": "served", "model": source | model})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"base_url": None}, "model.base_url: required and missing"),
        ({"base_url": "localhost:8000"}, "model.base_url: must be an address"),
        ({"base_url": "http://user:word@host/v1"}, "neither a password nor a query"),
        ({"base_url": "http://host/v1?key=word"}, "neither a password nor a query"),
        ({"chunk": 64}, "model.chunk: is for engines that this machine runs"),
        ({"options": {"via": "chat"}}, "model.options.via: must be echo or prompt_logprobs"),
        ({"options": {"top_logprobs": 0}}, "must be from 1 to 1,000 (got 0)"),
        ({"options": {"api_key": "sk"}}, "model.options.api_key: openai has no such option"),
        ({"options": {"api_key_env": "UNSET_KEY"}}, "'UNSET_KEY' holds no key"),
    ],
)
def test_a_wrong_model_file_is_refused_before_anything_is_asked(
    saved: Path, model: dict[str, Any], said: str
) -> None:
    """By its key; no value that could be a secret is repeated."""
    with pytest.raises(InputError) as caught:
        find_model(written(saved, **model))
    assert said in str(caught.value)
    assert "word" not in str(caught.value).replace("password", "")
