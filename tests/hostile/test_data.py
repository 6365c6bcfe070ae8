"""Texts and ids as others write them: what is valid is read, and what is not is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.data.documents import Text, read_texts, tokenize
from evalharness.errors import InputError
from evalharness.results.files import load_result
from evalharness.run.directory import Run
from evalharness.spec.suite import Suite, load_suite
from tests.conftest import tiny_tokenizer


def suite(**corpus: Any) -> Suite:
    """A suite of one corpus."""
    return Suite.model_validate({"name": "s", "corpora": [{"name": "c", **corpus}]})


def texts_of(tmp_path: Path, content: str | bytes, name: str = "a.jsonl", **corpus: Any) -> Any:
    """Texts of a corpus file by id, tokenised too."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    chosen = suite(path=str(path), **corpus)
    found, _ = read_texts(chosen)
    tokenize(found, chosen, tiny_tokenizer(), 1 << 60)
    return {t.id: t.text for t in found}


ROWS = '{"id": "x", "text": "hello there"}'
VALID = {
    "U+2028 in a text": ('{"text": "a\u2028b c"}\n', {"a.jsonl:1": "a\u2028b c"}),
    "U+0085 in a text": ('{"text": "a\x85b c"}\n', {"a.jsonl:1": "a\x85b c"}),
    "a byte-order mark": ("\ufeff" + ROWS, {"a.jsonl:x": "hello there"}),
    "line ends of Windows": (ROWS + "\r\n\r\n", {"a.jsonl:x": "hello there"}),
    "half a character": ('{"text": "a \\ud800 b"}', {"a.jsonl:1": "a \ufffd b"}),
    "a pair of halves": ('{"text": "a \\ud83d\\ude00"}', {"a.jsonl:1": "a 😀"}),
    "half a character as id": ('{"id": "\\udfff", "text": "ab cd"}', {"a.jsonl:\ufffd": "ab cd"}),
    "a null row": ("null\n" + ROWS, {"a.jsonl:x": "hello there"}),
    "a null text": ('{"text": null}\n' + ROWS, {"a.jsonl:x": "hello there"}),
    "an id over 64 bits": (
        '{"id": 18446744073709551617, "text": "ab cd"}',
        {"a.jsonl:18446744073709551617": "ab cd"},
    ),
    "NUL in a text": ('{"text": "a\\u0000 b"}', {"a.jsonl:1": "a\0 b"}),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_rows_are_read(tmp_path: Path, name: str) -> None:
    """JSON Lines are lines by U+000A alone, and JSON's strings may hold anything."""
    content, expected = VALID[name]
    assert texts_of(tmp_path, content) == expected


def test_a_json_file_holds_rows(tmp_path: Path) -> None:
    """A list of them, or one."""
    rows = json.dumps([{"id": "x", "text": "hello there"}, None, {"text": "more of it"}], indent=1)
    found = texts_of(tmp_path, rows, "a.json")
    assert found == {"a.json:x": "hello there", "a.json:3": "more of it"}
    assert texts_of(tmp_path, ROWS, "b.json") == {"b.json:x": "hello there"}


INVALID = {
    "no JSON": ("{", "a.jsonl:1: not JSON"),
    "deep": ("[" * 100_000, "a.jsonl:1: nested too deep"),
    "a number of 5,000 digits": ('{"text": ' + "9" * 5000 + "}", "a.jsonl:1: not JSON"),
    "a text that is a number": ('{"text": 5}', "a.jsonl:1: corpora.c.text_key: row has no text"),
    "a list": ("[1]", "a.jsonl:1: corpora.c: must be an object (got list)"),
    "nulls alone": ("null\nnull\n", "corpora.c: corpus 'c' is empty"),
    "Latin-1": (b'{"text": "\xe9"}', "a.jsonl: cannot be read as UTF-8 text"),
    "UTF-16": (ROWS.encode("utf-16"), "a.jsonl: cannot be read as UTF-8 text"),
    "nothing": ("", "corpora.c: corpus 'c' is empty"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_rows_are_named(tmp_path: Path, name: str) -> None:
    """With file and line."""
    content, expected = INVALID[name]
    with pytest.raises(InputError) as caught:
        texts_of(tmp_path, content)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([5, -1, 8], "holds token id -1, outside the model's vocabulary of 300"),
        ([5, 999, 8], "holds token id 999, outside the model's vocabulary of 300"),
        ([2**64, 1], "holds token id 18446744073709551616"),
        ([1, -(2**70)], "holds token id -1180591620717411303424"),
        ([1.5, 2], '"tokens" must be a list of ids'),
        ([True, 2], '"tokens" must be a list of ids'),
    ],
)
def test_the_wrong_id_is_named(tmp_path: Path, ids: list[Any], said: str) -> None:
    """And not the largest, which may be right."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": ids}) + "\n")
    chosen = suite(tokens=str(path))
    with pytest.raises(InputError) as caught:
        tokenize(read_texts(chosen)[0], chosen, tiny_tokenizer(), 300)
    assert said in str(caught.value)


@pytest.mark.parametrize("last", [2**63, 2**64 - 1])
def test_unsigned_ids_do_not_turn_negative(tmp_path: Path, last: int) -> None:
    """An array of 64 bits without a sign."""
    np.save(tmp_path / "a.npy", np.array([1, last], np.uint64))
    with pytest.raises(InputError, match=f"holds token id {last}"):
        read_texts(suite(tokens=str(tmp_path / "a.npy")))


def test_the_longest_document_is_of_the_corpus_that_is_named() -> None:
    """Another corpus has longer ones."""
    chosen = Suite.model_validate(
        {
            "name": "s",
            "corpora": [{"name": n, "source": "python:x"} for n in ("long", "short")],
            "window": {"min_tokens": 9},
        }
    )
    found = [
        Text("long", "a", None, np.arange(50), {}),
        Text("short", "b", None, np.arange(7), {}),
    ]
    with pytest.raises(InputError, match=r"'short' has no document of 9 tokens .*longest: 7\)"):
        tokenize(found, chosen, tiny_tokenizer(), 300)


@pytest.mark.parametrize("folder", ["run[1]", "[ab]", "a*b", "what?"])
def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path, folder: str) -> None:
    """Only what is not there is a pattern."""
    (tmp_path / folder).mkdir()
    for name in ("a.txt", "b[1].txt"):
        (tmp_path / folder / name).write_text("hello there")
    for pattern, count in (("*.txt", 2), ("b[1].txt", 1), ("[a-c].txt", 1)):
        (tmp_path / "s.yaml").write_text(
            f"name: s\ncorpora: [{{name: c, path: {json.dumps(f'{folder}/{pattern}')}}}]\n"
        )
        assert len(read_texts(load_suite(tmp_path / "s.yaml"))[0]) == count


@pytest.mark.parametrize("key", ["path", "tokens"])
def test_a_pipe_is_no_corpus(tmp_path: Path, key: str) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "s.yaml").write_text(f"name: s\ncorpora: [{{name: c, {key}: pipe.jsonl}}]\n")
    with pytest.raises(InputError, match="must be a regular file"):
        load_suite(tmp_path / "s.yaml")


MANIFESTS = ["[]", "1", "null", '"run"', '{"format": 0}', '{"format": true}', '{"format": "1"}']


@pytest.mark.parametrize("content", [*MANIFESTS, '{"format": 99}', "{", "\xff", "[" * 100_000])
def test_a_manifest_of_another_shape_is_no_run(tmp_path: Path, content: str) -> None:
    """And is named."""
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"manifest\.json"):
        Run.open(tmp_path)


@pytest.mark.parametrize("version", ["0", "true", "-1", '"1"', "null", "1.0", "99"])
def test_a_result_of_another_version_is_refused(tmp_path: Path, version: str) -> None:
    """`true` is 1 to Python."""
    (tmp_path / "result.json").write_text(f'{{"schema_version": {version}}}')
    with pytest.raises(InputError, match="schema_version: must be from 1 to"):
        load_result(tmp_path)
