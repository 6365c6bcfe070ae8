"""A block counts only while its files are what its completion mark says."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from evalharness.errors import InputError
from evalharness.run.directory import Run
from evalharness.run.records import ANOMALIES


def begun(path: Path) -> Run:
    """An unfinished run of three blocks."""
    run = Run.create(path, {"identity": "x", "noise_floor": {"kl.mean": 0.5}})
    for block in ("00000", "00001", "task-odd"):
        rows = [{"kind": "k", "message": block}]
        run.write_block(block, {"anomalies": pa.Table.from_pylist(rows, schema=ANOMALIES)})
    run.close()
    return run


def flip(path: Path, at: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[at.randrange(len(data))] ^= 1 << at.randrange(8)
    path.write_bytes(data)


def zero(path: Path, at: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = at.randrange(len(data) // 2)
    data[start : start + 8] = bytes(8)
    path.write_bytes(data)


def cut(path: Path, at: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: -1 - at.randrange(10)])


HARM = {"flip": flip, "zero": zero, "cut": cut, "empty": lambda p, _: p.write_bytes(b"")}


@pytest.mark.parametrize("name", ["anomalies-00001.parquet", "done-00001", "done-task-odd"])
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_block_is_not_done(tmp_path: Path, name: str, harm: str) -> None:
    """Whatever became of its records or its mark; the others are kept."""
    for seed in range(2):
        run = begun(tmp_path / str(seed))
        HARM[harm](run.records / name, random.Random(seed))
        again = Run.resume(run.path, {"identity": "x"})
        again.close()
        (gone,) = again.damaged
        assert gone in name
        assert again.done() == {"00000", "00001", "task-odd"} - {gone}
        assert len(list(again.records.iterdir())) == 4


def test_a_missing_record_is_measured_again_and_a_stray_one_is_removed(tmp_path: Path) -> None:
    """A stray is what a process leaves that dies before its block's mark."""
    run = begun(tmp_path / "run")
    (run.records / "anomalies-00000.parquet").rename(run.records / "anomalies-00009.parquet")
    again = Run.resume(run.path, {"identity": "x"})
    again.close()
    assert again.damaged == ["00000"]
    assert not list(again.records.glob("*-00009*"))
    assert again.table("anomalies")["message"].to_pylist() == ["00001", "task-odd"]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    """The noise floor is in it: the rest of the run would be judged by another one."""
    run = begun(tmp_path / "run")
    file = run.path / "manifest.json"
    file.write_text(file.read_text().replace("0.5", "0.1"))
    with pytest.raises(InputError, match=r"manifest.json: was changed after the run"):
        Run.resume(run.path, {"identity": "x"})


def test_a_run_without_digests_is_refused_by_name(tmp_path: Path) -> None:
    """As an earlier version left it."""
    run = begun(tmp_path / "run")
    (run.path / "manifest.json").write_text('{"identity": "x", "evalharness": "0.1"}')
    with pytest.raises(InputError, match=r"was begun by evalharness 0.1, which kept no SHA-256"):
        Run.resume(run.path, {"identity": "x"})
