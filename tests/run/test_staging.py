"""A finished run is changed in one step, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalharness.errors import InputError, RunError
from evalharness.run.directory import Run
from evalharness.run.finished import open_finished, rewriting
from evalharness.run.staging import FOLDER

FILES = ("policy.yaml", "result.json", "report.html")


class Killed(BaseException):
    """The process ends here."""


def sealed(path: Path) -> Path:
    """A finished run whose files all say ``old``."""
    run = Run.create(path / "run", {"seconds": {}})
    for name in FILES:
        run.write_text(name, "old")
    run.seal()
    run.close()
    return run.path


def rewrite(path: Path) -> None:
    with rewriting(path) as run:
        run.update(policy="new")
        for name in FILES:
            run.write_text(name, "new")
        run.seal()


def test_every_kill_leaves_the_old_run_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each rename: four that stage, the manifest's, and three that put in place."""
    real, seen = os.replace, set()
    for point in range(len(FILES) * 2 + 1):
        path = sealed(tmp_path / str(point))
        calls = iter(range(100))

        def replace(a: Path, b: Path, calls: object = calls, point: int = point) -> None:
            if next(calls) >= point:  # type: ignore[call-overload]
                raise Killed
            real(a, b)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", replace)
            with pytest.raises(Killed):
                rewrite(path)
        run = open_finished(path)
        state = {(path / name).read_text() for name in FILES}
        assert len(state) == 1
        assert state == ({"new"} if run.manifest.get("policy") else {"old"})
        seen |= state
        rewrite(path)
        assert not (path / FOLDER).exists() or not any((path / FOLDER).iterdir())
    assert seen == {"old", "new"}


def test_a_full_disk_leaves_the_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is not written, and the run is as it was."""
    path = sealed(tmp_path)

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match="free some space"):
            rewrite(path)
    open_finished(path)
    assert {(path / name).read_text() for name in FILES} == {"old"}


def test_what_is_staged_and_not_committed_is_not_taken(tmp_path: Path) -> None:
    """Nor is what somebody puts there."""
    path = sealed(tmp_path)
    (path / FOLDER).mkdir(exist_ok=True)
    (path / FOLDER / "result.json").write_text("forged")
    open_finished(path)
    assert (path / "result.json").read_text() == "old"
    (path / "result.json").write_text("forged")
    with pytest.raises(InputError, match="was changed after the run"):
        open_finished(path)
