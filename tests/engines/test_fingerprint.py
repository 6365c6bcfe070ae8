"""The same bytes, the same fingerprint; one changed weight or token, another."""

from __future__ import annotations

import hashlib

import pytest
import torch
from transformers import AutoTokenizer

from evalharness.engines import fingerprint
from evalharness.engines.fingerprint import tokenizer_fingerprint, weights_fingerprint
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
    """Oracle: the digest of one joined byte string; the tied head is named, not hashed again."""
    model = tiny(tied=True)
    text = b""
    for name, value in sorted(model.state_dict().items()):
        if name == "model.embed_tokens.weight":
            text += b"model.embed_tokens.weight tied\n"
            continue
        text += f"{name} {list(value.shape)} {value.dtype}\n".encode()
        text += value.contiguous().view(torch.uint8).numpy().tobytes()
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
