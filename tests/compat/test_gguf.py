"""What breaks when gguf, or the way transformers reads with it, moves."""

from __future__ import annotations

from pathlib import Path

import pytest

gguf = pytest.importorskip("gguf")

from evalharness.compat.gguf import is_installed, read_once  # noqa: E402
from evalharness.compat.transformers import load_causal_model  # noqa: E402
from evalharness.engines.file_headers import GGML_TYPES, gguf_tensors  # noqa: E402
from tests.engines.conftest import gguf_file  # noqa: E402, F401 (a fixture)


def test_a_file_is_parsed_once_however_often_it_is_asked_for(
    gguf_file: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token table of 50,000 takes 4 s: transformers still looks the reader up in the module."""
    parsed: list[object] = []
    own = gguf.GGUFReader.__init__

    def counted(self: object, *args: object, **kwargs: object) -> None:
        parsed.append(args)
        own(self, *args, **kwargs)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", counted)
    with read_once():
        load_causal_model(gguf_file)
        load_causal_model(gguf_file)
    assert len(parsed) == 1


def test_the_library_is_as_it_was_afterwards_and_blocks_may_be_nested() -> None:
    """A name that was moved would raise here."""
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with read_once():
        inside = gguf.GGUFReader
        with read_once():
            assert gguf.GGUFReader is inside is not before[0]
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
    assert is_installed()


def test_the_weights_are_dense(gguf_file: Path) -> None:  # noqa: F811
    """No quantiser is left on the model, so that it can be quantised and saved."""
    found = load_causal_model(gguf_file)
    assert found.missing == found.mismatched == found.unexpected == []
    assert all(p.is_floating_point() for p in found.model.parameters())
    assert not hasattr(found.model.config, "quantization_config")


def test_our_table_of_types_is_the_librarys() -> None:
    """Bits per weight of a file are counted by it, without importing the library."""
    theirs = {
        kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind])
        for kind in gguf.GGMLQuantizationType
        if kind in gguf.GGML_QUANT_SIZES
    }
    assert {number: theirs[number] for number in GGML_TYPES} == GGML_TYPES


def test_our_reading_of_the_tensor_table_is_the_librarys(gguf_file: Path) -> None:  # noqa: F811
    """Names, shapes and types."""
    ours = {t.name: (t.shape, t.type) for t in gguf_tensors(gguf_file, "k")}
    theirs = {
        t.name: (tuple(int(n) for n in reversed(t.shape)), int(t.tensor_type))
        for t in gguf.GGUFReader(gguf_file).tensors
    }
    assert ours == theirs
