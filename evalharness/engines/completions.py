"""A client of OpenAI's completions API that asks for the log-probabilities of given token ids.

An answer is believed only where it is about the ids that were sent: as many, the same, in their
order, with a log-probability each. Anything else is refused with what was found, since a server
that ignores `echo`, cuts a prompt or puts a token before it answers with status 200.
"""

from __future__ import annotations

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from evalharness.errors import InputError, RunError, short
from evalharness.spec.visible_text import printable

Known = npt.NDArray[np.float64]
"""(n, K, 2): of each position the ids and log-probabilities that are known of the next token, the
true one first; (−1, −∞) where fewer are."""

_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 30.0
_PREFIX = "token_id:"  # how a server names a token by its id
_NEVER = -9999.0  # what vLLM writes for −∞
_ROUNDING = 1e-3  # that log-probabilities may have been written with
_UNKNOWN_CONTEXT = 1 << 30


class Completions:
    """Asks one server about one model.

    Parameters
    ----------
    name : of the side, for errors.
    url : up to and without ``/completions``.
    model : its name there; None: the only one that the server lists.
    key : sent as a bearer token, and written nowhere.
    via : ``echo`` or ``prompt_logprobs``.
    top : how many of the most likely tokens to ask for.
    timeout_s, retries : of each request.
    vocabulary : ids are below.

    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        model: str | None = None,
        key: str | None = None,
        via: str = "echo",
        top: int = 20,
        timeout_s: float = 120,
        retries: int = 4,
        vocabulary: int,
    ) -> None:
        self.name, self.url, self.via, self.top = name, url, via, top
        self.model = model or ""
        self.vocabulary, self.context = vocabulary, _UNKNOWN_CONTEXT
        self.chunk = 0  # it is the server's own affair
        self.timeout_s, self.retries = timeout_s, retries
        self._key = key
        self._opener = urllib.request.build_opener(_NoRedirect)

    def begin(self, ids: list[int]) -> None:
        """Find the model, and see that the server can say what it will be asked.

        Raises
        ------
        InputError : it cannot, or does not have the model.
        RunError : it does not answer.

        """
        self._find_model()
        self._ask(ids)

    def rows(self, ids: list[int], first: int, chunk: int | None = None) -> Iterator[Known]:
        """What is known of the tokens after the positions of ``ids`` from ``first`` on."""
        del chunk
        try:
            yield self._ask(ids)[first:]
        except InputError as error:  # what worked at the start
            raise RunError(f"{error.message}. {error.remedy or ''}".strip()) from error

    def extend(self, ids: list[int], *, fresh: bool) -> Any:
        """Nothing: whole answers of a server are another matter."""
        raise RunError(f"{self.name}: a server's own generation is not measured here")

    def close(self) -> None:
        """Nothing is kept open."""

    # -- what is asked

    def _find_model(self) -> None:
        try:
            listed = self._send("models").get("data")
        except InputError:
            if self.model:
                return  # a server may have no such list
            raise
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        names = [str(m.get("id")) for m in models]
        if not self.model and len(names) == 1:
            self.model = names[0]
        if self.model not in names and (not self.model or names):
            shown = ", ".join(printable(n) for n in names[:8]) or "none"
            found = f"does not list {short(self.model)}" if self.model else "has no single model"
            raise self._refused(f"{found} (it lists: {shown})", "Name one.", "options.model")
        for one in models:
            longest = one.get("max_model_len")
            if one.get("id") == self.model and type(longest) is int and longest > 1:
                self.context = longest - 1  # a token is generated, since 0 is refused by some

    def _ask(self, ids: list[int]) -> Known:
        """What is known of the token after each of ``ids`` but the last, (len(ids) − 1, K, 2)."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 1,  # what scales the log-probabilities of some servers
            "top_p": 1,
            "n": 1,
            "stream": False,
            "add_special_tokens": False,
        }
        if self.via == "echo":
            body |= {"echo": True, "logprobs": self.top, "return_tokens_as_token_ids": True}
        else:
            body |= {"prompt_logprobs": self.top}
        answer = self._send("completions", body)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise self._refused(f"answers with {short(choices)} where one choice was asked for")
        usage = answer.get("usage")
        counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if type(counted) is int and counted not in (0, len(ids)):
            raise self._refused(f"read {counted:,} tokens where {len(ids):,} were sent", _MENDED)
        read = self._echoed if self.via == "echo" else self._prompted
        found = np.empty((len(ids) - 1, self.top + 1, 2))
        found[:] = (-1, -math.inf)
        for row, (token, known) in enumerate(zip(ids[1:], read(ids, choices[0]), strict=True)):
            self._check(row + 1, token, known)
            known = {token: known[token], **known}  # the true one first
            likely = sorted(known.items(), key=lambda one: (one[0] != token, -one[1], one[0]))
            pairs = likely[: self.top + 1]
            found[row, : len(pairs)] = pairs
        return found

    # -- what is answered

    def _echoed(self, ids: list[int], choice: dict[str, Any]) -> Iterator[dict[int, float]]:
        """Log-probabilities by id after the first, second … of ``ids``, from `echo`."""
        parts = choice.get("logprobs")
        if not isinstance(parts, dict):
            raise self._refused("gives no log-probabilities", _OTHER)
        lists = [parts.get(k) for k in ("tokens", "token_logprobs", "top_logprobs")]
        if not all(isinstance(one, list) for one in lists):
            kinds = ", ".join(sorted(printable(str(k)) for k in parts)) or "nothing"
            raise self._refused(
                f"gives no lists of tokens and log-probabilities (it has: {kinds})", _OTHER
            )
        tokens, own, top = ([] if one is None else one for one in lists)
        if len(tokens) < 2 <= len(ids):
            raise self._refused(
                f"ignores `echo`: of the {len(ids):,} tokens sent it says nothing", _OTHER
            )
        if not len(tokens) == len(own) == len(top):
            sizes = f"{len(tokens):,} tokens, {len(own):,} and {len(top):,} log-probabilities"
            raise self._refused(f"drops log-probabilities: it gives {sizes}")
        if len(tokens) not in (len(ids), len(ids) + 1):
            raise self._refused(
                f"echoes {len(tokens):,} tokens where {len(ids):,} were sent", _MENDED
            )
        for at, (token, sent) in enumerate(zip(tokens, ids)):
            found = self._id(token, at)
            if found != sent:
                raise self._refused(f"has token {found} at position {at}, where {sent} was sent")
        return self._pairs(ids, own, top)

    def _pairs(self, ids: list[int], own: list[Any], top: list[Any]) -> Iterator[dict[int, float]]:
        for at in range(1, len(ids)):
            token, value = ids[at], self._number(own[at], at)
            likely = self._likely(top[at], at)
            if abs(likely.get(token, value) - value) > _ROUNDING:
                raise self._refused(
                    f"gives token {token} at position {at} two log-probabilities, {value:.6g} and "
                    f"{likely[token]:.6g}"
                )
            yield {token: value, **likely}

    def _prompted(self, ids: list[int], choice: dict[str, Any]) -> Iterator[dict[int, float]]:
        """The same from vLLM's `prompt_logprobs`."""
        parts = choice.get("prompt_logprobs")
        if not isinstance(parts, list):
            raise self._refused("gives no prompt_logprobs", "Try options.via: echo.")
        if len(parts) != len(ids):
            raise self._refused(
                f"gives prompt_logprobs of {len(parts):,} tokens where {len(ids):,} were sent",
                _MENDED,
            )
        for at in range(1, len(ids)):
            known = self._likely(parts[at], at)
            if ids[at] not in known:
                raise self._refused(
                    f"gives no log-probability of token {ids[at]}, which is at position {at}"
                )
            yield known

    def _likely(self, entry: Any, at: int) -> dict[int, float]:
        if not isinstance(entry, dict):
            raise self._refused(f"drops the log-probabilities at position {at}: {short(entry)}")
        found = {}
        for name, value in entry.items():
            number = value.get("logprob") if isinstance(value, dict) else value
            found[self._id(name, at)] = self._number(number, at)
        return found

    def _id(self, name: Any, at: int) -> int:
        text = name.removeprefix(_PREFIX) if isinstance(name, str) else ""
        named = text != name or self.via == "prompt_logprobs"
        if not named or not text.isascii() or not text.isdigit():
            raise self._refused(
                f"names the token at position {at} {short(name)}, not by its id: several tokens "
                "may have one text",
                _OTHER,
            )
        return int(text[:12])

    def _number(self, value: Any, at: int) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refused(f"drops the log-probability at position {at}: {short(value)}")
        if value > _ROUNDING:
            raise self._refused(f"gives {value:.6g} at position {at}, which is no log-probability")
        return -math.inf if value <= _NEVER else float(value)

    def _check(self, at: int, token: int, known: dict[int, float]) -> None:
        least = min(self.top, self.vocabulary)
        if len(known) < least:
            raise self._refused(
                f"gives {len(known)} log-probabilities at position {at}, where {least} were asked "
                "for",
                f"Set top_logprobs to what it gives (at most {len(known)}).",
                "options.top_logprobs",
            )
        total = sum(math.exp(value) for value in known.values())
        if total > 1 + _ROUNDING:
            raise self._refused(
                f"gives probabilities at position {at} that add up to {total:.4g}: they are not "
                "those of the model's distribution"
            )

    # -- the wire

    def _send(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer as JSON; asked again, ever later, where there is none."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)  # noqa: S310
        for attempt in range(self.retries + 1):
            wait = min(_LONGEST_WAIT_S, 0.5 * 2**attempt)
            try:
                with self._opener.open(request, timeout=self.timeout_s) as response:
                    return self._object(response.read())
            except urllib.error.HTTPError as error:
                why = self._status(error, path)
                wait = _asked_to_wait(error, wait)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                why = self._hidden(f"{type(error).__name__}: {reason}")
            if attempt < self.retries:
                time.sleep(wait)
        raise RunError(
            f"{self.name}: no answer from {self.url}/{path} in {self.retries + 1} attempts: {why}"
        )

    def _status(self, error: urllib.error.HTTPError, path: str) -> str:
        """Why to ask again; `InputError` where that is of no use."""
        with error:
            try:
                said = error.read(2000).decode("utf-8", "replace")
            except (OSError, http.client.HTTPException):
                said = ""
        why = f"status {error.code}"
        if said:
            why += f", {short(self._hidden(said), 300)}"
        if error.code in _AGAIN:
            return why
        remedy, key = "", "base_url"
        if error.code in (401, 403):
            remedy = "Name the environment variable that holds the key."
            key = "options.api_key_env"
        elif error.code in (301, 302, 303, 307, 308):
            remedy = "Give the address that it leads to; a key is not sent on."
        elif error.code in (404, 405):
            remedy = "The address of most servers ends in /v1."
        raise self._refused(f"answers /{path} with {why}", remedy, key)

    def _object(self, answer: bytes) -> dict[str, Any]:
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = answer[:60].decode("utf-8", "replace")
        if not isinstance(found, dict):
            raise self._refused(f"answers with {short(self._hidden(str(found)))}, no JSON object")
        return found

    def _refused(self, what: str, remedy: str = "", key: str = "base_url") -> InputError:
        return InputError(
            f"{self.name}: the server at {self.url} {printable(what)}",
            key=f"model.{key}",
            remedy=remedy or "Such a server cannot be measured.",
        )

    def _hidden(self, text: str) -> str:
        """``text`` without the key, which a server may have sent back."""
        return text if self._key is None else text.replace(self._key, "…")


_OTHER = (
    "It takes a server that gives log-probabilities of a prompt by token id: vLLM does by "
    "options.via: prompt_logprobs, and by echo."
)
_MENDED = "Something is cut off, or put before the ids: token ids must be taken as they are."


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is for the server that was named."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        """No other address."""


def _asked_to_wait(error: urllib.error.HTTPError, otherwise: float) -> float:
    try:
        asked = float(error.headers.get("Retry-After", ""))
    except ValueError:
        return otherwise
    return min(_LONGEST_WAIT_S, max(0.0, asked)) if math.isfinite(asked) else otherwise
