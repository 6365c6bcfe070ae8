"""YAML files that are too much, that are not what they seem, or that ask for the impossible."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from evalharness.data.documents import read_texts
from evalharness.errors import InputError
from evalharness.gates import load_policy
from evalharness.spec.model import load_model_spec
from evalharness.spec.slices import SlicedDocument, subsets
from evalharness.spec.suite import load_suite
from evalharness.spec.yamlfile import parse_yaml
from evalharness.workflow.plan import tidy
from tests.cli.command import cli

TEN = ", ".join
BOMB = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{TEN([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 31)
)
INPUTS = {
    "a bomb": (BOMB, "f:7: f[0][9]: holds more"),
    "merges": (MERGES, "holds more than 100,000 values, its aliases written out"),
    "itself": ("a: &a [*a]\n", "nested more than 64 deep"),
    "itself, merged": ("a: &a {b: *a}\n", "nested more than 64 deep"),
    "deep lists": ("a: " + "[" * 400 + "]" * 400, "nested more than 64 deep"),
    "deep mappings": ("a: " + "{b: " * 300 + "1" + "}" * 300, "nested more than 64 deep"),
    "digits": ("a: " + "9" * 5000, "a number of 5,000 digits"),
    "hexadecimal digits": ("a: 0x" + "f" * 5000, "a number of 5,002 digits"),
    "half a character": ('a: "\\ud800"\n', "holds U+D800, half of a character"),
    "half a character as a key": ('"\\udfff": 1\n', "holds U+DFFF, half of a character"),
    "a mapping as a key": ("{a: 1}: 2\n", "a key must be plain text"),
    "a list as a key": ("? [a, b]\n: 2\n", "a key must be plain text"),
    "a key twice": ("a: 1\na: 2\n", "f:2: a: given twice"),
    "two documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
    "an unknown alias": ("a: *b\n", "not valid YAML"),
    "a tag": ("a: !!python/object/apply:os.system [true]\n", "not valid YAML"),
    "a set": ("!!set {a, b}\n", "not valid YAML"),
    "binary": ("a: !!binary 'no'\n", "not valid YAML"),
    "a timestamp": ("a: !!timestamp 'x'\n", "not valid YAML"),
    "a NUL": ("a: \0\n", "not valid YAML"),
    "nothing": ("", "must be a mapping of keys to values (got nothing)"),
    "a list": ("- a\n", "must be a mapping of keys to values (got list)"),
    "merging a text": ("a: {<<: b}\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_it_is_refused_at_once(name: str) -> None:
    """With the line where there is one, in little time and memory."""
    text, expected = INPUTS[name]
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        parse_yaml(text, Path("f"))
    expected = "holds more" if name == "a bomb" else expected
    assert expected in str(caught.value)
    assert str(caught.value).startswith("f:")
    assert time.process_time() - began < 5


def test_a_long_file_is_refused_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens alone take seconds."""
    monkeypatch.setattr("evalharness.spec.yamlfile._MOST_NODES", 50)
    with pytest.raises(InputError, match="f:1: column 99: not valid YAML: more than 50 values"):
        parse_yaml("a: [" + "1," * 500 + "{", Path("f"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("010", 10),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("~", None),
        ("", None),
        ("null", None),
        ("=", "="),
        ("0b11", "0b11"),
        ("1.0.0", "1.0.0"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Norway is no Boolean, and a time of day no number."""
    found = parse_yaml(f"a: {text}\n", Path("f")).data["a"]
    assert (type(found), found) == (type(value), value)


def test_keys_are_as_they_are_written() -> None:
    """Numbers and Norway too."""
    found = parse_yaml("{no: 1, 1: 2, null: 3, 2026-01-31: 4, 1.50: 5}\n", Path("f"))
    assert list(found.data) == ["no", "1", "null", "2026-01-31", "1.50"]


def test_merges_keep_what_is_written(tmp_path: Path) -> None:
    """A key of the mapping itself wins."""
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\n"
    found = parse_yaml(text, Path("f")).data
    assert found["b"] == {"x": 1, "y": 3}
    assert found["c"] == {"x": 1, "y": 2, "z": 4}


def test_norway_is_a_slice(tmp_path: Path) -> None:
    """`labels: {language: no}`."""
    (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "hei"}\n')
    (tmp_path / "s.yaml").write_text(
        "version: 1\nname: off\ncorpora:\n"
        "  - {name: nb, path: texts.jsonl, labels: {language: no}}\nslices:\n  - {by: language}\n"
    )
    suite = load_suite(tmp_path / "s.yaml")
    assert suite.name == "off"
    docs = [SlicedDocument(t.corpus, t.id, t.attributes) for t in read_texts(suite)[0]]
    assert [s.name for s in subsets(suite.model_dump()["slices"], docs)] == ["language=no"]


@pytest.mark.parametrize(
    ("confidence", "unless", "most"),
    [
        (0.9999, "", "Give 0.9995 or less."),
        (0.99951, "", "Give 0.9995 or less."),
        (
            0.999,
            f"{{max: 2, any: [{TEN(['{metric: top1.agreement, min: 0.5}'] * 6)}]}}",
            "Give 0.9965 or less, or fewer conditions to the gate 'kl.mean'.",
        ),
    ],
)
def test_more_confidence_than_resampling_shows_is_refused(
    tmp_path: Path, confidence: float, unless: str, most: str
) -> None:
    """It was a traceback after the pass."""
    more = f", unless: {unless}" if unless else ""
    (tmp_path / "p.yaml").write_text(
        f"confidence: {confidence}\ngates: [{{metric: kl.mean, max: 1{more}}}]\n"
    )
    with pytest.raises(InputError) as caught:
        load_policy(tmp_path / "p.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'p.yaml'}:1: confidence: a confidence of ")
    assert str(caught.value).endswith(most)


MODELS = {
    "a NUL in a path": ('model: {path: "./a\\0b"}', "no such file or directory"),
    "a path too long": (f"model: {{path: ./{'a' * 5000}}}", "cannot be a file name"),
    "nobody's home": ("model: {path: ~nobody-at-all/x}", "cannot be a file name"),
    "a base too long": (f"from: {'a' * 5000}", "cannot be a file name"),
    "itself as base": ("from: m.yaml", "refers to itself through `from`"),
    "a folder as base": ("from: .", "no such file"),
    "a number as base": ("from: 1", "must be a file name"),
    "a model that is text": ("model: x", "should be a valid dictionary"),
    "an adapter too long": (f"model: {{path: gpt2}}\nadapter: ./{'a' * 5000}", "cannot be"),
    "infinite bits": (
        "model: {path: gpt2}\nsimulate: {weights: {bits: .inf}}",
        "finite number",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_that_names_nothing(tmp_path: Path, name: str) -> None:
    """File, line and key are named."""
    text, expected = MODELS[name]
    (tmp_path / "m.yaml").write_text(f"name: m\n{text}\n")
    with pytest.raises(InputError) as caught:
        load_model_spec(tmp_path / "m.yaml")
    assert expected in str(caught.value)
    assert "m.yaml:" in str(caught.value)


SUITES = {
    "a relative module": (
        "corpora: [{name: c, source: python:..x}]",
        "corpora[0]: source must be python:MODULE (got 'python:..x')",
    ),
    "a text of 9,000 letters": (f"seed: {'x' * 9000}", "xxx…)"),
    "a seed below zero": ("seed: -1", "seed: should be greater than or equal to 0"),
    "an endless seed": (f"seed: {'9' * 200}", "seed: should be less than"),
    "a path too long": (f"corpora: [{{name: c, path: {'a' * 5000}}}]", "cannot be a file name"),
    "no such file": ("corpora: [{name: c, path: no.txt}]", "no such file"),
    "a name that is a path": ("corpora: [{name: ../c, path: s.yaml}]", "should match pattern"),
    "a name of two lines": ('corpora: [{name: "c\\n", path: s.yaml}]', "should match pattern"),
    "a broken expression": (
        'corpora: [{name: c, hub: {path: a/b, starts: "("}}]',
        "hub.starts: must be a regular expression",
    ),
}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_that_asks_for_what_cannot_be(tmp_path: Path, name: str) -> None:
    """Before anything is measured."""
    text, expected = SUITES[name]
    (tmp_path / "s.yaml").write_text(f"name: s\n{text}\n")
    with pytest.raises(InputError) as caught:
        load_suite(tmp_path / "s.yaml")
    assert expected in str(caught.value)
    assert "s.yaml:" in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000, "no\nsuch", "~nobody-at-all/x", "-"])
def test_a_file_name_that_cannot_be(name: str) -> None:
    """On the command line."""
    code, _, said = cli("plan", "--", name)
    assert code == 2, said


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("int4[g32]", "int4-g32-"),
        ("..", "-"),
        (".", "-"),
        ("../../up", "-..-up"),
        (".hidden", "hidden"),
        ("a" * 300, "a" * 80),
        ("\x1b[31m\0", "-31m-"),
        ("日本", "-"),
    ],
)
def test_a_run_is_called_by_a_tame_name(name: str, folder: str) -> None:
    """Whatever its model is called."""
    assert tidy(name) == folder
