"""Documents: reading, sampling, tokenising, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from evalharness.data.documents import bos_token, fingerprint, read_texts, tokenize
from evalharness.data.windows import cut
from evalharness.errors import InputError
from evalharness.pair.texts.token_pass import scored_bytes
from evalharness.spec.suite import Suite
from tests.conftest import tiny_tokenizer


def suite(corpus: dict[str, Any], **more: Any) -> Suite:
    return Suite.model_validate({"name": "s", "corpora": [{"name": "c", **corpus}], **more})


def test_topics_of_the_standard_library_are_documents() -> None:
    """python:MODULE gives one document a name."""
    texts, warnings = read_texts(suite({"source": "python:pydoc_data.topics", "documents": 5}))
    assert len(texts) == 5
    assert warnings == []
    assert all(t.text for t in texts)


def test_the_sample_depends_on_the_seed_alone() -> None:
    """The same seed draws the same documents; another draws others."""
    corpus = {"source": "python:pydoc_data.topics", "documents": 5}
    draws = [[t.id for t in read_texts(suite(corpus, seed=s))[0]] for s in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_fewer_documents_than_asked_for_is_said() -> None:
    """A sample cannot be larger than its source."""
    _, warnings = read_texts(suite({"source": "python:pydoc_data.topics", "documents": 9999}))
    assert "9999 were asked for" in warnings[0]


def test_jsonl_rows_keep_their_attributes(tmp_path: Path) -> None:
    """Attributes feed slices."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "text": "hello", "lang": "en"}) + "\n")
    texts, _ = read_texts(suite({"path": str(path), "attributes": ["lang"]}))
    assert (texts[0].id, texts[0].attributes) == ("a.jsonl:x", {"lang": "en"})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "a.jsonl:1: not JSON"),
        ("[1]", "a.jsonl:1: corpora.c: must be an object (got list)"),
        ('{"body": "x"}', "a.jsonl:1: corpora.c.text_key: row has no text under 'text'"),
        ("", "corpora.c: corpus 'c' is empty"),
    ],
)
def test_a_bad_corpus_file_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    """File, line and key are named."""
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_texts(suite({"path": str(path)}))
    assert expected in str(caught.value)


def test_documents_shorter_than_a_window_needs_are_refused(tmp_path: Path) -> None:
    """second_half scores nothing of a text shorter than half a window."""
    path = tmp_path / "a.txt"
    path.write_text("too short")
    chosen = suite({"path": str(path)}, window={"tokens": 512, "score": "second_half"})
    texts, _ = read_texts(chosen)
    with pytest.raises(InputError, match="has no document of 258 tokens or more"):
        tokenize(texts, chosen, tiny_tokenizer(), 300)


def test_byte_ends_count_the_utf8_bytes_of_the_text(tmp_path: Path) -> None:
    """Tokens that end inside a character do not count it twice."""
    text = "héllo wörld — 😀 done"
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    chosen = suite({"path": str(path)})
    document = tokenize(read_texts(chosen)[0], chosen, tiny_tokenizer(), 300)[0]
    assert document.byte_ends is not None
    assert document.byte_ends[-1] == len(text.encode())
    assert (np.diff(document.byte_ends) >= 0).all()


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    """A .npy array is one document; ids outside the vocabulary are refused."""
    path = tmp_path / "ids.npy"
    np.save(path, np.array([5, 6, 7]))
    chosen = suite({"tokens": str(path)})
    document = tokenize(read_texts(chosen)[0], chosen, tiny_tokenizer(), 300)[0]
    assert document.tokens.tolist() == [5, 6, 7]
    assert document.byte_ends is None
    with pytest.raises(InputError, match="token id 7, outside the model's vocabulary of 7"):
        tokenize(read_texts(chosen)[0], chosen, tiny_tokenizer(), 7)


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    """Loading one could run any code."""
    path = tmp_path / "ids.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a NumPy array"):
        read_texts(suite({"tokens": str(path)}))


def test_the_fingerprint_changes_with_one_token(tmp_path: Path) -> None:
    """It is what makes two runs comparable."""
    prints = []
    for ids in ([1, 2, 3], [1, 2, 4]):
        path = tmp_path / "ids.npy"
        np.save(path, np.array(ids))
        chosen = suite({"tokens": str(path)})
        prints.append(fingerprint(tokenize(read_texts(chosen)[0], chosen, tiny_tokenizer(), 300)))
    assert prints[0] != prints[1]


def test_columns_and_labels_become_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first row where several make a document; a row's own value wins over a label."""
    rows = datasets.Dataset.from_dict(
        {
            "text": ["= one\n", "first\n", "= two\n", "second\n"],
            "language": ["de", "xx", None, "yy"],
        }
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    hub = {"path": "some/set", "starts": "^= "}
    chosen = suite(
        {"hub": hub, "attributes": ["language"], "labels": {"domain": "wiki", "language": "en"}}
    )
    found = {t.id: (t.text, t.attributes) for t in read_texts(chosen)[0]}
    assert found == {
        "0": ("= one\nfirst\n", {"domain": "wiki", "language": "de"}),
        "1": ("= two\nsecond\n", {"domain": "wiki", "language": "en"}),
    }
    with pytest.raises(InputError, match=r"corpora.c.attributes: .* has no column 'lang'"):
        read_texts(suite({"hub": hub, "attributes": ["lang"]}))


def test_documents_of_one_name_are_documents_of_their_own(tmp_path: Path) -> None:
    """They are drawn at random like any other, and known by their place among the texts."""
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"id": "x", "text": f"text {i:03}"}) + "\n" for i in range(50))
    )
    chosen = suite({"path": str(path), "documents": 40})
    texts, _ = read_texts(chosen)
    found = [t.text for t in texts]
    assert {t.id for t in texts} == {"a.jsonl:x"}
    assert len(set(found)) == 40
    assert found != sorted(found, key=str)
    assert found == [t.text for t in read_texts(chosen)[0]]
    documents = tokenize(texts, chosen, tiny_tokenizer(), 300)
    assert [(d.number, d.text) for d in documents] == [(i, i) for i in range(40)]


def test_files_of_one_name_in_two_folders_are_called_by_their_folders(tmp_path: Path) -> None:
    """From where the wildcards begin, wherever that lies."""
    for folder in ("one", "two/deep"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text("hello there")
    (tmp_path / "two" / "rows.jsonl").write_text('{"text": "hi", "id": null}\n{"text": "ho"}\n')
    found, _ = read_texts(suite({"path": str(tmp_path / "**" / "*.*")}))
    assert sorted(t.id for t in found) == [
        "one/a.txt",
        "two/deep/a.txt",
        "two/rows.jsonl:1",
        "two/rows.jsonl:2",
    ]


def test_a_text_that_begins_with_a_bos_is_fed_one(tmp_path: Path) -> None:
    """As the tokenizer itself feeds the text without it; no byte of it is scored."""
    plain, tokenizer = "judge my vow", tiny_tokenizer(bos=True)
    rows = [{"text": plain}, {"text": f"<eos>{plain}"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = suite({"path": str(path)})
    found = tokenize(read_texts(chosen)[0], chosen, tokenizer, 300)
    windows = cut(found, chosen, bos_token(tokenizer))
    assert len(found) == len(windows) == 2
    for document, window in zip(found, windows, strict=True):
        assert window.ids.tolist() == tokenizer(plain)["input_ids"]
        assert scored_bytes(document, [window]) == len(plain)


def test_ids_that_begin_with_a_bos_are_fed_one(tmp_path: Path) -> None:
    """A file that was made with special tokens."""
    tokenizer = tiny_tokenizer(bos=True)
    ids = tokenizer("judge my vow")["input_ids"]
    path = tmp_path / "ids.npy"
    np.save(path, np.array(ids))
    chosen = suite({"tokens": str(path)}, window={"tokens": len(ids)})
    found = tokenize(read_texts(chosen)[0], chosen, tokenizer, 300)
    (window,) = cut(found, chosen, bos_token(tokenizer))
    assert (window.ids.tolist(), window.scored) == (ids, len(ids) - 1)
