"""The cache of the reference's hidden states: the same numbers, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from evalharness.cli.main import app
from evalharness.data.documents import Document
from evalharness.data.windows import Window, cut, longest
from evalharness.errors import EvalHarnessError
from evalharness.pair.texts.hidden_cache import HiddenCache, default_root, entries
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.spec.suite import Suite

Load = Callable[..., Any]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("EVALHARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Measured:
    """A pass over the documents with the cache; keeps what was said and how often backbones ran."""

    def __init__(
        self,
        reference: Any,
        candidate: Any,
        documents: list[Document],
        windows: list[Window],
        root: Path | None,
        *,
        batch_size: int = 3,
        probe: Any = None,
    ) -> None:
        self.said: list[str] = []
        self.calls = 0
        self.cache = None if root is None else HiddenCache(reference, root, self.said.append)
        work = TokenPass(
            reference, candidate, documents, batch_size=batch_size, probe=probe, cache=self.cache
        )
        for side in (reference, candidate):
            side.alone_because(longest(windows))  # tried once a model, by calls of its own
        handle = reference.backbone.register_forward_hook(self._count)
        self.tables = {k: t.to_pandas() for k, t in work.run(windows).items()}
        handle.remove()

    def _count(self, *_: Any) -> None:
        self.calls += 1


@pytest.fixture
def plain(suite: Suite) -> Suite:
    """The suite without the layer probe."""
    return suite.model_copy(update={"probes": ()})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_second_candidate_gets_the_numbers_of_a_live_reference_bit_for_bit(
    side: Load, documents: list[Document], plain: Suite, root: Path, dtype: str
) -> None:
    """And the reference's backbone does not run."""
    reference, windows = side(dtype=dtype), cut(documents, plain, None)
    first = Measured(reference, side(bits=8, dtype=dtype), documents, windows, root)
    candidate = side(bits=4, dtype=dtype)
    second = Measured(reference, candidate, documents, windows, root)
    live = Measured(reference, candidate, documents, windows, None)
    assert first.calls == live.calls > 0
    assert second.calls == 0
    assert second.said == []
    pd.testing.assert_frame_equal(second.tables["tokens"], live.tables["tokens"])
    pd.testing.assert_frame_equal(second.tables["contexts"], live.tables["contexts"])


def test_an_entry_holds_the_head_s_inputs_and_no_logits(
    side: Load, documents: list[Document], plain: Suite, root: Path
) -> None:
    """Width times bytes of a number, for each scored token."""
    windows = cut(documents, plain, None)
    Measured(side(dtype="bfloat16"), side(bits=4, dtype="bfloat16"), documents, windows, root)
    tokens = sum(s.scored for s in windows)
    header = 1500 * len(list(entries(root)))
    stored = sum(f.stat().st_size for f in entries(root))
    assert 32 * 2 * tokens <= stored <= 32 * 2 * tokens + header


def test_windows_of_the_layer_probe_need_the_live_reference(
    side: Load, documents: list[Document], suite: Suite, root: Path
) -> None:
    """They are measured as ever, beside windows from the cache."""
    reference, candidate = side(), side(bits=4)
    windows = cut(documents, suite, None, suite.layers.windows)
    tables = []
    for _ in range(2):
        probe = LayerWatcher(reference, candidate, True)
        done = Measured(reference, candidate, documents, windows, root, probe=probe)
        tables.append(done.tables)
    probed = [s for s in windows if s.probed]
    rehearsal = 1  # of the probe, on a few tokens
    assert done.calls == -(-len(probed) // 3) + rehearsal
    for name in ("tokens", "layers"):
        pd.testing.assert_frame_equal(tables[0][name], tables[1][name])


def test_another_reference_finds_nothing(
    side: Load, documents: list[Document], plain: Suite, root: Path
) -> None:
    """Other weights, another dtype: another name."""
    windows = cut(documents, plain, None)
    candidate = side(bits=4)
    Measured(side(), candidate, documents, windows, root)
    for other in (side(1), side(bits=8), side(rope_theta=500.0)):
        assert Measured(other, candidate, documents, windows, root).cache.hits == 0  # type: ignore[union-attr]


def test_another_batch_size_finds_nothing(
    side: Load, documents: list[Document], plain: Suite, root: Path
) -> None:
    """A batch's shape decides its rounding."""
    reference, windows = side(), cut(documents, plain, None)
    Measured(reference, reference, documents, windows, root)
    again = Measured(reference, reference, documents, windows, root, batch_size=2)
    assert again.cache is not None
    assert again.cache.hits == 0


def truncate(files: list[Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-9])


def flip(files: list[Path]) -> None:
    data = bytearray(files[0].read_bytes())
    data[-1] ^= 1
    files[0].write_bytes(bytes(data))


def swap(files: list[Path]) -> None:
    files[0].write_bytes(files[1].read_bytes())


def empty(files: list[Path]) -> None:
    files[0].write_bytes(b"")


def relabel(files: list[Path]) -> None:
    data = files[0].read_bytes()
    files[0].write_bytes(data.replace(b'"tokens":"', b'"tokens":"1', 1))


@pytest.mark.parametrize("harm", [truncate, flip, swap, empty, relabel])
def test_a_damaged_or_foreign_entry_is_computed_again_and_never_used(
    side: Load,
    documents: list[Document],
    plain: Suite,
    root: Path,
    harm: Callable[[list[Path]], None],
) -> None:
    """It is said, and the entry is whole afterwards."""
    reference, candidate = side(), side(bits=4)
    windows = cut(documents, plain, None)
    first = Measured(reference, candidate, documents, windows, root)
    harm(list(entries(root)))
    second = Measured(reference, candidate, documents, windows, root)
    assert second.calls == 1
    assert [re.search("is not used and computed again", s) is not None for s in second.said] == [
        True
    ]
    pd.testing.assert_frame_equal(second.tables["tokens"], first.tables["tokens"])
    assert Measured(reference, candidate, documents, windows, root).calls == 0


def test_a_deleted_entry_is_computed_again(
    side: Load, documents: list[Document], plain: Suite, root: Path
) -> None:
    """Without a word: nothing was wrong."""
    reference, candidate = side(), side(bits=4)
    windows = cut(documents, plain, None)
    Measured(reference, candidate, documents, windows, root)
    next(entries(root)).unlink()
    second = Measured(reference, candidate, documents, windows, root)
    assert (second.calls, second.said) == (1, [])


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(
    side: Load,
    documents: list[Document],
    plain: Suite,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk is said once; no temporary file stays."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evalharness.pair.texts.hidden_cache.write", full)
    windows = cut(documents, plain, None)
    done = Measured(side(), side(bits=4), documents, windows, root)
    assert len(done.tables["tokens"]) == sum(s.scored for s in windows)
    assert len(done.said) == 1
    assert "No space left on device" in done.said[0]
    assert [p for p in root.rglob("*") if p.is_file()] == []


def test_a_released_reference_still_gives_logits(side: Load) -> None:
    """Of the backbone nothing is left, unless the head shares it."""
    for tied in (False, True):
        reference = side(tie_word_embeddings=tied)
        hidden = reference.hidden(torch.arange(5)[None])[0]
        before = reference.logits(hidden)
        reference.release_backbone()
        assert torch.equal(reference.logits(hidden), before)
        left = sum(p.numel() for p in reference.model.parameters())
        assert left == reference.head.weight.numel()


def cli(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["cache", *arguments])
    if isinstance(done.exception, EvalHarnessError):
        return done.exception.exit_code, done.stdout + str(done.exception)
    return done.exit_code, done.stdout


def test_the_command_lists_checks_and_removes(
    side: Load, documents: list[Document], plain: Suite, root: Path
) -> None:
    """ls, verify, rm; and what is wrong is said."""
    windows = cut(documents, plain, None)
    for seed in (0, 1):
        Measured(side(seed), side(bits=4), documents, windows, root)
    tokens = sum(s.scored for s in windows)
    code, out = cli("ls")
    assert code == 0
    assert re.findall(r"([\d,]+) +\d+ +[\d.]+ +0\.13  (tiny\d-None) \(float32\)", out) == [
        (f"{tokens:,}", name) for name in re.findall(r"tiny\d-None", out)
    ]
    count = len(list(entries(root)))
    assert cli("verify") == (0, f"{count} entries, 0 damaged\n")
    flip(list(entries(root)))
    code, out = cli("verify")
    assert code == 4
    assert "its SHA-256 differs" in out
    assert cli("verify") == (0, f"{count - 1} entries, 0 damaged\n")
    assert cli("rm")[0] == 2
    assert "nothing is kept of 'none'" in cli("rm", "none")[1]
    assert cli("rm", "tiny0-None")[0] == 0
    assert "tiny0-None" not in cli("ls")[1]
    assert cli("rm", "--all")[0] == 0
    assert list(entries(root)) == []


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """$EVALHARNESS_CACHE, $XDG_CACHE_HOME, ~/.cache."""
    monkeypatch.setenv("EVALHARNESS_CACHE", "/a/b")
    assert default_root() == Path("/a/b")
    monkeypatch.delenv("EVALHARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_root() == Path("/x/evalharness")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "evalharness"
