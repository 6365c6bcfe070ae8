"""What ships, against the sizes of files."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from evalharness.engines.loading import load
from evalharness.engines.shipped import shipped
from evalharness.spec.model import ModelSource, ModelSpec
from tests.engines.conftest import ALL, Make, tiny


def spec_of(path: Path, **more: object) -> ModelSpec:
    """A model file of ``path``."""
    source = ModelSource(path=str(path))
    return ModelSpec.model_validate({"name": "m", "model": source, **more})


def test_a_directory_ships_the_tensors_of_its_files(saved: Path) -> None:
    """Two bytes a parameter."""
    found = shipped(spec_of(saved), saved)
    assert found is not None
    assert (found.bytes, found.reason) == (2 * ALL, "")


def test_pickled_weights_ship_their_storages_once(tmp_path: Path) -> None:
    """A tied head is one storage under two names."""
    state = tiny(tied=True).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = shipped(spec_of(tmp_path), tmp_path)
    assert found is not None
    assert found.bytes == 2 * tiny(tied=True).num_parameters()


def test_what_cannot_be_read_is_not_measured(tmp_path: Path) -> None:
    """A file that is no pickle, and a directory without weights."""
    empty = shipped(spec_of(tmp_path), tmp_path)
    assert empty is not None
    assert (empty.bytes, "neither safetensors" in empty.reason) == (None, True)
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    broken = shipped(spec_of(tmp_path), tmp_path)
    assert broken is not None
    assert (broken.bytes, "cannot be read" in broken.reason) == (None, True)


def test_what_is_made_on_loading_has_no_files(saved: Path) -> None:
    """A recipe ships nothing yet."""
    recipe = {"weights": {"bits": 4, "group_size": 32}}
    assert shipped(spec_of(saved, simulate=recipe), saved) is None


def test_a_dtype_of_loading_is_not_what_ships(spec: Make, saved: Path, tmp_path: Path) -> None:
    """The files stay in bfloat16; in memory they are float32."""
    place = Path(shutil.copytree(saved, tmp_path / "copy"))
    got = load(spec(place, dtype="float32")).manifest
    assert (got.bits_per_weight, got.weight_bytes, got.ships) == (16.0, 2 * ALL, "files")
    assert (got.counted_bits_per_weight, got.resident_bytes) == (32.0, 4 * ALL)
    assert (got.kernel, got.activations, got.compressed_share) == ("dense", "not quantised", 0.0)
