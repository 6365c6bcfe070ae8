"""YAML files: what is refused, and where the error points."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.spec.suite import load_suite
from evalharness.spec.yamlfile import load_yaml


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    return path


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_suite(path)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    text = message(tmp_path / "suite.yaml")
    assert text == "suite.yaml: no such file. Check the path on the command line."


def test_malformed_yaml_gives_line_and_column(tmp_path: Path) -> None:
    """The place is where the parser stopped."""
    text = message(write(tmp_path, "version: 1\nname: [a\ncorpora: 3\n"))
    assert text.startswith("suite.yaml:3: column 8: not valid YAML: expected ',' or ']'")


def test_an_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    """The suggestion comes from the keys allowed at that place."""
    text = message(write(tmp_path, "name: s\ncorpora:\n  - name: a\n    sorce: python:x\n"))
    assert text == "suite.yaml:4: corpora[0].sorce: unknown key. Did you mean 'source'?"


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    """YAML would keep the last in silence."""
    assert message(write(tmp_path, "name: a\nname: b\n")) == "suite.yaml:2: name: given twice"


def test_a_value_of_the_wrong_kind_says_what_was_got(tmp_path: Path) -> None:
    """Expected and found are both there."""
    text = message(
        write(tmp_path, "name: s\ncorpora:\n  - {name: a, source: 'python:x', documents: 0}\n")
    )
    assert text == (
        "suite.yaml:3: corpora[0].documents: should be greater than or equal to 1 (got 0)"
    )


def test_a_limit_of_zero_is_refused(tmp_path: Path) -> None:
    """It would measure nothing and pass."""
    text = message(write(tmp_path, "name: s\ntasks:\n  - {name: arc_easy, limit: 0}\n"))
    assert text.startswith("suite.yaml:3: tasks[0].limit: should be greater than or equal to 1")


def test_a_suite_that_measures_nothing_is_refused(tmp_path: Path) -> None:
    """Neither corpora nor tasks."""
    assert "there is nothing to measure" in message(write(tmp_path, "name: s\n"))


def test_tags_that_build_objects_are_not_run(tmp_path: Path) -> None:
    """Only the safe loader is used."""
    text = message(write(tmp_path, "name: !!python/object/apply:os.getcwd []\n"))
    assert "not valid YAML" in text


def test_a_list_is_not_a_mapping(tmp_path: Path) -> None:
    """The top level must be a mapping."""
    with pytest.raises(InputError, match=r"must be a mapping of keys to values \(got list\)"):
        load_yaml(write(tmp_path, "- a\n"))
