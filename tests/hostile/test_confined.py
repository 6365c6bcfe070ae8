"""What a file of the repository may name: with --confined nothing outside, and never a device."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evalharness.data.items import prepare_tasks
from evalharness.errors import InputError
from evalharness.gates import load_policy
from evalharness.spec.model import load_model_spec
from evalharness.spec.permissions import granted
from evalharness.spec.suite import Task, load_suite
from tests.cli.command import cli
from tests.hostile.test_code import task_file

GATES = "gates: [{metric: kl.mean, max: 1}]\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, beside which lie files that are none of its business."""
    root = tmp_path / "repo"
    (root / ".git").mkdir(parents=True)
    (root / "inside").mkdir()
    (tmp_path / "secret.yaml").write_text("name: secret\nmodel: {path: gpt2}\n")
    (tmp_path / "gates.yaml").write_text(GATES)
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    (root / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (root / "link.yaml").symlink_to(tmp_path / "gates.yaml")
    (root / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(root / "inside")
    return root


def read(kind: str, path: Path) -> object:
    """Read a file of a kind."""
    readers: dict[str, Callable[[Path], object]] = {
        "model": load_model_spec,
        "policy": load_policy,
        "suite": load_suite,
    }
    return readers[kind](path)


REACHES = [
    ("model", "from: ../secret.yaml\nname: m\n", "from"),
    ("model", "from: folder/secret.yaml\nname: m\n", "from"),
    (
        "model",
        "name: m\nmodel: {path: gpt2}\nmanifest: {calibration_data: ../secret.jsonl}\n",
        "manifest.calibration_data",
    ),
    ("policy", "extends: ../gates.yaml\n", "extends"),
    ("policy", "extends: link.yaml\n", "extends"),
    ("policy", f"baseline: ../secret.jsonl\n{GATES}", "baseline"),
    ("policy", f"baseline: /etc/hostname\n{GATES}", "baseline"),
    ("suite", "name: s\ncorpora: [{name: c, path: ../secret.jsonl}]\n", "corpora[0].path"),
    ("suite", "name: s\ncorpora: [{name: c, path: '*.jsonl'}]\n", "corpora[0].path"),
    ("suite", "name: s\ncorpora: [{name: c, path: '../s*.jsonl'}]\n", "corpora[0].path"),
    ("suite", "name: s\ncorpora: [{name: c, tokens: link.jsonl}]\n", "corpora[0].tokens"),
    ("suite", "name: s\ncorpora: [{name: c, path: /etc/hostname}]\n", "corpora[0].path"),
    ("suite", "name: s\ntasks: [{path: ../secret.yaml}]\n", "tasks[0].path"),
]


@pytest.mark.parametrize(("kind", "text", "key"), REACHES)
def test_what_lies_outside_is_refused(repository: Path, kind: str, text: str, key: str) -> None:
    """By path, by pattern and through a link; without --confined it is read."""
    path = repository / "file.yaml"
    path.write_text(text)
    with granted(confined=True), pytest.raises(InputError) as caught:
        read(kind, path)
    assert f": {key}: " in str(caught.value)
    assert f"lies outside {repository}. Name a file of this repository." in str(caught.value)
    read(kind, path)


@pytest.mark.parametrize("key", ["include", "dataset_kwargs", "dataset_path"])
def test_a_task_reads_no_data_from_outside(repository: Path, key: str) -> None:
    """Nor includes a file from there."""
    (repository.parent / "secret.json").write_text("[]")
    value = "{data_files: {test: ../secret.json}}" if key == "dataset_kwargs" else "../secret.yaml"
    path = task_file(repository, **{key: value})
    with granted(confined=True), pytest.raises(InputError, match=f"lies outside {repository}"):
        prepare_tasks((Task(path=str(path)),), seed=0)


def test_what_lies_inside_is_read(repository: Path) -> None:
    """And what the user names, wherever it lies, with what lies beside it."""
    (repository / "base.yaml").write_text("name: b\nmodel: {path: gpt2}\n")
    (repository / "inside/m.yaml").write_text("from: ../base.yaml\nname: m\n")
    (repository.parent / "user.yaml").write_text("extends: gates.yaml\n")
    (repository / "shipped.yaml").write_text("extends: evalharness:strict\n")
    with granted(confined=True):
        assert load_model_spec(repository / "inside/m.yaml").name == "m"
        assert load_policy(repository.parent / "user.yaml").gates
        assert load_policy(repository / "shipped.yaml").gates


def test_the_option_and_the_environment_confine(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as the command runs."""
    path = repository / "p.yaml"
    path.write_text("extends: ../gates.yaml\n")
    assert cli("plan", path)[0] == 0
    code, _, said = cli("plan", path, "--confined")
    assert (code, "lies outside" in said) == (2, True)
    assert cli("plan", path)[0] == 0
    monkeypatch.setenv("EVALHARNESS_CONFINED", "1")
    assert cli("plan", path)[0] == 2


DEVICES = ["/dev/zero", "/dev/stdin", "pipe"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("policy", "baseline: {}\n" + GATES.replace("{", "{{").replace("}", "}}")),
        ("policy", "extends: {}\n"),
        ("model", "from: {}\nname: m\n"),
        ("suite", "name: s\ncorpora: [{{name: c, path: {}}}]\n"),
        ("suite", "name: s\ncorpora: [{{name: c, tokens: {}}}]\n"),
        ("suite", "name: s\ntasks: [{{path: {}}}]\n"),
    ],
)
def test_a_device_is_never_read(tmp_path: Path, kind: str, text: str, device: str) -> None:
    """Confined or not: it may never end."""
    os.mkfifo(tmp_path / "pipe")
    if device == "/dev/stdin" and Path(device).is_file():
        pytest.skip("stdin is a file here")
    (tmp_path / "f.yaml").write_text(text.format(device))
    with pytest.raises(InputError, match="must be a regular file"):
        read(kind, tmp_path / "f.yaml")


NAMES = ["a/b", "../../up", "a\\b", "a\0b", "a\nb", "x" * 300, "é" * 100, "", "\u202e"]


@pytest.mark.parametrize("name", NAMES)
def test_a_task_whose_records_could_not_be_written(tmp_path: Path, name: str) -> None:
    """Its name is part of file names; it is refused before a model is loaded."""
    path = task_file(tmp_path, task=json.dumps(name))
    with pytest.raises(InputError) as caught:
        prepare_tasks((Task(path=str(path)),), seed=0)
    assert "tasks[0].path: " in str(caught.value)
    assert "a task cannot be called" in str(caught.value) or not name
