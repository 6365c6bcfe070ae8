"""The run directory: whole blocks, integrity, and one writer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from evalharness.errors import InputError
from evalharness.run.directory import Run
from evalharness.run.files import TEMPORARY
from evalharness.run.finished import READ
from evalharness.run.manifest import MANIFEST
from evalharness.run.records import ANOMALIES


def rows(*messages: str) -> dict[str, pa.Table]:
    return {
        "anomalies": pa.Table.from_pylist(
            [{"kind": "k", "message": m} for m in messages], schema=ANOMALIES
        )
    }


def test_a_block_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    """Records whose done file is missing are not read."""
    run = Run.create(tmp_path / "run", {"identity": "x"})
    run.write_block("00000", rows("a"))
    run.write_block("00001", rows("b"))
    (run.records / "done-00001").unlink()
    assert run.done() == {"00000"}
    assert run.table("anomalies")["message"].to_pylist() == ["a"]


def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    Run.create(tmp_path / "run", {}).close()
    with pytest.raises(InputError, match="--out: holds another run"):
        Run.create(tmp_path / "run", {})


def test_a_second_writer_is_kept_out(tmp_path: Path) -> None:
    """Two processes never write one run."""
    run = Run.create(tmp_path / "run", {"identity": "x"})
    with pytest.raises(InputError, match="another process is writing this run"):
        Run.resume(run.path, {"identity": "x"})
    run.close()
    Run.resume(run.path, {"identity": "x"}).close()


def test_resuming_with_other_inputs_is_refused(tmp_path: Path) -> None:
    """Blocks of two comparisons never mix."""
    Run.create(tmp_path / "run", {"identity": "x"}).close()
    with pytest.raises(InputError, match=r"begun with other inputs: identity \(.x., now .y.\)"):
        Run.resume(tmp_path / "run", {"identity": "y"})


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_a_record_edited_by_hand_is_found(tmp_path: Path, harm: str) -> None:
    """SHA-256 of every file is in the manifest."""
    run = Run.create(tmp_path / "run", {})
    run.write_block("00000", rows("a"))
    run.seal()
    Run.open(run.path).verify(READ)
    file = run.records / "anomalies-00000.parquet"
    if harm == "change":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif harm == "remove":
        file.unlink()
    else:
        (run.records / "done-00001").touch()
    with pytest.raises(InputError, match=r"was changed after|is missing from|was added after"):
        Run.open(run.path).verify(READ)


def test_a_manifest_edited_by_hand_is_found(tmp_path: Path) -> None:
    """It decides, too: slices and the noise floor are in it."""
    run = Run.create(tmp_path / "run", {"noise_floor": {"kl.mean": 0.5}})
    run.seal()
    Run.open(run.path).verify(READ)
    file = run.path / "manifest.json"
    file.write_text(file.read_text().replace("0.5", "0.0"))
    with pytest.raises(InputError, match=r"manifest.json: was changed after the run"):
        Run.open(run.path).verify(READ)


def test_a_directory_that_is_no_run_is_named(tmp_path: Path) -> None:
    """The remedy says what to give."""
    with pytest.raises(InputError, match=r"not a run: it has no manifest.json"):
        Run.open(tmp_path)


def test_what_a_process_left_that_died_before_its_manifest_is_gone(tmp_path: Path) -> None:
    (tmp_path / "run" / "records").mkdir(parents=True)
    (tmp_path / "run" / f"{MANIFEST}.7{TEMPORARY}").write_text("{")
    run = Run.create(tmp_path / "run", {})
    run.close()
    assert {p.name for p in run.path.iterdir()} <= {MANIFEST, "records", "lock"}
