"""Model files: inheritance, relative paths, and what is refused with which line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.spec.model import ModelSpec, load_model_spec

BASE = """\
version: 1
name: base
model:
  path: org/name
  revision: v1
  dtype: bfloat16
manifest: {tool: none}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def candidate(base: Path, text: str) -> ModelSpec:
    path = base.parent / "candidate.yaml"
    path.write_text(text)
    return load_model_spec(path)


def refused(base: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        candidate(base, text)
    return str(caught.value).replace(str(base.parent) + "/", "")


def test_a_candidate_gives_only_what_differs(base: Path) -> None:
    """Mappings are merged; the manifest of the base is not the candidate's."""
    spec = candidate(base, "from: base.yaml\nname: c\nmodel: {dtype: float32}\n")
    assert (spec.name, spec.model.path, spec.model.revision) == ("c", "org/name", "v1")
    assert spec.model.dtype == "float32"
    assert spec.manifest.tool is None


def test_another_path_has_its_own_revision(base: Path) -> None:
    """The base's commit means nothing there."""
    spec = candidate(base, "from: base.yaml\nname: c\nmodel: {path: org/other}\n")
    assert (spec.model.path, spec.model.revision, spec.model.dtype) == (
        "org/other",
        None,
        "bfloat16",
    )


def test_recipes_are_replaced_whole(base: Path) -> None:
    """Half of one recipe joined to half of another is neither."""
    middle = base.parent / "middle.yaml"
    middle.write_text(
        "from: base.yaml\nname: m\n"
        "simulate: {weights: {bits: 4, group_size: 32, exclude: [lm_head]}}\n"
    )
    spec = candidate(
        base,
        "from: middle.yaml\nname: c\nsimulate: {weights: {bits: 8, granularity: channel}}\n",
    )
    assert spec.simulate is not None
    weights = spec.simulate.weights
    assert (weights.bits, weights.group_size, weights.exclude) == (8, None, ())


def test_relative_paths_are_relative_to_the_file(base: Path, monkeypatch) -> None:
    """Wherever the command runs."""
    (base.parent / "weights").mkdir()
    monkeypatch.chdir("/")
    spec = candidate(base, "name: c\nmodel: {path: weights, tokenizer: ./weights}\n")
    assert spec.model.path == spec.model.tokenizer == str(base.parent / "weights")


def test_a_link_keeps_its_name(base: Path) -> None:
    """A GGUF file in the hub's cache has its suffix only on the link."""
    (base.parent / "0123abc").write_bytes(b"GGUF")
    (base.parent / "m.gguf").symlink_to(base.parent / "0123abc")
    assert candidate(base, "name: c\nmodel: {path: m.gguf}\n").model.path == str(
        base.parent / "m.gguf"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "from: base.yaml\n",
            "candidate.yaml: name: required and missing: a candidate needs a name of its own",
        ),
        ("from: no.yaml\nname: c\n", "candidate.yaml:1: from: no such file: no.yaml"),
        (
            "from: candidate.yaml\nname: c\n",
            "candidate.yaml:1: from: refers to itself through `from`",
        ),
        (
            "name: c\nmodel:\n  path: ./nowhere\n",
            "candidate.yaml:3: model.path: no such file or directory: nowhere. Give a directory",
        ),
        (
            "from: base.yaml\nname: c\nquantization: {method: gptq}\n",
            "candidate.yaml:3: quantization: method must be one of "
            "('bitsandbytes', 'torchao') (got 'gptq')",
        ),
        (
            "from: base.yaml\nname: c\nsimulate:\n  weights: {bits: 4}\n",
            "candidate.yaml:4: simulate.weights: group_size must be given with granularity: group,",
        ),
        (
            "from: base.yaml\nname: c\nsimulate:\n  weights: {bits: 1, group_size: 32}\n",
            "candidate.yaml:4: simulate.weights.bits: should be greater than or equal to 2 (got 1)",
        ),
        (
            "from: base.yaml\nname: c\nmodel: {dtyp: float32}\n",
            "candidate.yaml:3: model.dtyp: unknown key. Did you mean 'dtype'?",
        ),
        (
            "from: base.yaml\nname: c\nsimulate: {weights: {bits: 4, group_size: 32}}\n"
            "quantization: {method: torchao}\n",
            "candidate.yaml: give quantization or simulate, not both",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_key(base: Path, text: str, message: str) -> None:
    """File, line, key, what was found."""
    assert refused(base, text).startswith(message)
