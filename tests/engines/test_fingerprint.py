"""The same bytes, the same fingerprint; one changed weight or token, another."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizer

from evalharness.engines import fingerprint
from evalharness.engines.fingerprint import read_alike, tokenizer_fingerprint, weights_fingerprint
from tests.conftest import tiny_tokenizer
from tests.engines.conftest import byte_tokenizer, tiny


def test_two_loads_of_one_model_agree() -> None:
    """Nothing but names, shapes, dtypes and bytes goes in."""
    assert weights_fingerprint(tiny()) == weights_fingerprint(tiny())


def test_one_changed_weight_changes_it() -> None:
    """The smallest change of the last weight."""
    model = tiny()
    before = weights_fingerprint(model)
    weight = model.lm_head.weight.data
    weight[-1, -1] = torch.nextafter(weight[-1, -1], torch.tensor(9.0).bfloat16())
    assert weights_fingerprint(model) != before


def test_the_dtype_and_the_tying_change_it() -> None:
    """Another dtype holds other bytes; a head of its own is another model."""
    prints = {
        weights_fingerprint(m)
        for m in (tiny(), tiny(dtype=torch.float32), tiny(tied=True), tiny(hidden=32))
    }
    assert len(prints) == 4


def test_it_is_the_hash_of_the_sorted_tensors() -> None:
    """Oracle: the digest of a list of digests; the tied head is named, not hashed again."""
    model = tiny(tied=True)
    text = b""
    for name, value in sorted(model.state_dict().items()):
        if name == "model.embed_tokens.weight":
            text += b"model.embed_tokens.weight tied\n"
            continue
        held = hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        text += f"{name} {list(value.shape)} {value.dtype} {held}\n".encode()
    assert weights_fingerprint(model) == hashlib.sha256(text).hexdigest()


def test_the_chunk_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tensors are hashed in pieces."""
    expected = weights_fingerprint(tiny())
    monkeypatch.setattr(fingerprint, "_CHUNK", 1001)
    assert weights_fingerprint(tiny()) == expected


def test_saving_and_padding_leave_the_tokenizer_alone(saved) -> None:
    """Padding and truncation are settings of a call, not of the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(saved)
    before = tokenizer_fingerprint(tokenizer)
    assert before == tokenizer_fingerprint(byte_tokenizer())
    tokenizer.pad_token = tokenizer.eos_token
    changed = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "bb"], padding=True, truncation=True, max_length=4)
    assert tokenizer_fingerprint(tokenizer) == changed


def test_a_token_or_a_special_token_changes_it() -> None:
    """Either changes ids or what they mean."""
    prints = {tokenizer_fingerprint(byte_tokenizer())}
    more = byte_tokenizer()
    more.add_tokens(["<new>"])
    prints.add(tokenizer_fingerprint(more))
    special = byte_tokenizer()
    special.bos_token = "a"
    prints.add(tokenizer_fingerprint(special))
    assert len(prints) == 3


class InPython(PreTrainedTokenizer):
    """Two letters, and perhaps one more before every text."""

    def __init__(self, first: str | None = None) -> None:
        self.letters, self.first = {"a": 0, "b": 1}, first
        super().__init__(bos_token="b")

    @property
    def vocab_size(self) -> int:
        return len(self.letters)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.letters)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.letters[token]

    def _convert_id_to_token(self, index: int) -> str:
        return "ab"[index]

    def build_inputs_with_special_tokens(self, ids: list[int], pair: Any = None) -> list[int]:
        return ids if self.first is None else [self.letters[self.first], *ids]


def test_what_is_done_with_special_tokens_in_a_text_changes_it() -> None:
    """A setting beside the backend's state, which decides ids."""
    plain, split = tiny_tokenizer(), tiny_tokenizer()
    split.split_special_tokens = True
    assert plain("<eos>")["input_ids"] != split("<eos>")["input_ids"]
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(split)
    assert read_alike(plain, tiny_tokenizer())
    assert not read_alike(plain, split)


def test_tokenizers_in_python_are_not_known_to_read_alike() -> None:
    """Their code may add what their vocabulary does not show."""
    plain, bos = InPython(), InPython(first="b")
    assert tokenizer_fingerprint(plain) == tokenizer_fingerprint(bos)
    assert plain("a")["input_ids"] != bos("a")["input_ids"]
    assert read_alike(plain, plain)
    assert not read_alike(plain, bos)
