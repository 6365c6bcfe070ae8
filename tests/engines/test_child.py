"""An engine in a process of its own: what it answers, and every way in which it can fail."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.engines import child as module
from evalharness.engines.child import Child
from evalharness.engines.workers import serve
from evalharness.errors import InputError, RunError
from tests.engines.numpy_driver import table
from tests.engines.processes import alive

DRIVER = Path(__file__).with_name("numpy_driver.py")
IDS = list(range(5, 40))
Make = Callable[..., Child]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Patience of less than a second; temporary files of this test's own."""
    for name, value in {"ALIVE": 0.1, "SILENT": 0.7, "STUCK": 30.0, "POLL": 0.1}.items():
        monkeypatch.setattr(module, name, value)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(module, "_memory", lambda size: None)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Start a toy; none may be left."""
    started: list[int] = []

    def start(chunk: int = 8, python: str | None = None, **options: Any) -> Child:
        child = Child("toy", DRIVER, {"chunk": chunk, **options}, python=python)
        started.append(child.pid)
        return child

    yield start
    gc.collect()
    assert not [pid for pid in started if alive(pid)]


def read(child: Child, ids: list[int] = IDS, first: int = 0, chunk: int | None = None) -> Any:
    return np.concatenate(list(child.rows(ids, first, chunk)))


def left(tmp_path: Path) -> list[str]:
    return sorted(p.name.split("-")[1] for p in (tmp_path / "temporary").iterdir())


def test_rows_are_the_drivers_own(make: Make, tmp_path: Path) -> None:
    """For every first position and chunk, bit for bit; nothing is left when it is closed."""
    child = make()
    for length in (1, 7, 8, 9, 35):
        for first in {0, 1, 7, length - 1} & set(range(length)):
            for chunk in (None, 1, 3, 8):
                found = read(child, IDS[:length], first, chunk)
                np.testing.assert_array_equal(found, table(IDS[:length])[first:])
    assert left(tmp_path) == ["engine"]  # its log; the slots have no name any more
    child.close()
    child.close()
    assert left(tmp_path) == []
    assert not alive(child.pid)


def test_a_sequence_goes_on_token_by_token(make: Make) -> None:
    """After the last of each piece, the row that the whole sequence has there."""
    child = make()
    for fresh in (IDS, IDS[::-1]):
        whole = table(fresh)
        np.testing.assert_array_equal(child.extend(fresh[:20], fresh=True), whole[19])
        for at in range(20, 30):
            np.testing.assert_array_equal(child.extend(fresh[at : at + 1], fresh=False), whole[at])
    np.testing.assert_array_equal(read(child), table(IDS))


def test_rows_that_are_no_longer_wanted_leave_the_engine_usable(make: Make) -> None:
    """However many of them were read, and how slowly."""
    child = make(chunk=4)
    for taken in range(9):
        rows = child.rows(IDS, 0)
        for _ in range(taken):
            next(rows)
        time.sleep(0.05)  # both slots are full by now
        rows.close()
        np.testing.assert_array_equal(read(child, IDS[taken:]), table(IDS[taken:]))
    found = []
    for piece in child.rows(IDS, 0):
        time.sleep(0.05)
        found.append(piece)
    np.testing.assert_array_equal(np.concatenate(found), table(IDS))


def test_what_an_engine_prints_goes_to_its_log(make: Make) -> None:
    """From Python and from below it."""
    child = make(fault="chatter", at=9)
    np.testing.assert_array_equal(read(child), table(IDS))
    assert child.log.read_text().split() == ['{"id":', "1,", '"end":', "true}", "no", "JSON"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("leave", "ended with code 7 while computing logits. The engine's log: {log}\n  | "),
        ("die", "was killed by SIGKILL, as happens where memory is out, while computing logits"),
        ("stop", "gave no sign of life for 1 s while computing logits"),
        ("hold", "gave no sign of life for 1 s while computing logits"),
        ("fail", "failed while computing logits (ValueError: the toy failed)"),
        ("short", "gave logits of 8 of 35 positions"),
        ("start", "gave logits from 9 on instead of 8"),
        ("fewer", "gave logits from 16 on instead of 15"),
        ("vocabulary", "logits of shape (8, 299) do not fit 8 rows of a vocabulary of 300"),
        ("flat", "logits of shape (8, 1) do not fit 8 rows of a vocabulary of 300"),
    ],
)
def test_every_fault_is_one_error_and_no_process(
    make: Make, tmp_path: Path, fault: str, said: str
) -> None:
    """It names the model, what happened and the log, which is kept; and so whenever asked again."""
    child = make(fault=fault, at=12)
    with pytest.raises(RunError) as caught:
        read(child)
    text = str(caught.value)
    assert text.startswith("toy: its engine ")
    assert said.format(log=child.log) in text
    assert f"The engine's log: {child.log}" in text
    assert not alive(child.pid)
    for again in (lambda: read(child), lambda: child.extend(IDS, fresh=True)):
        with pytest.raises(RunError) as caught:
            again()
        assert str(caught.value) == text
    child.close()
    assert left(tmp_path) == ["engine"]


@pytest.mark.parametrize("fault", ["leave", "die", "stop", "fail"])
def test_a_fault_of_generation_is_an_error_too(make: Make, fault: str) -> None:
    """In the middle of a sequence."""
    child = make(fault=fault, at=22)
    child.extend(IDS[:20], fresh=True)
    with pytest.raises(RunError, match=r"toy: its engine .* while computing logits"):
        [child.extend([token], fresh=False) for token in range(5)]


def test_a_chunk_that_never_comes_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the process shows life."""
    monkeypatch.setattr(module, "STUCK", 0.7)
    with pytest.raises(RunError, match="took more than 1 s over computing logits"):
        read(make(fault="wait"))


def test_work_is_a_sign_of_life(make: Make) -> None:
    """An engine that holds the interpreter while it computes does not hang."""
    np.testing.assert_array_equal(read(make(fault="work", at=3)), table(IDS))


def test_a_request_to_a_stopped_process_does_not_wait_for_room_in_the_pipe(make: Make) -> None:
    """It is longer than the pipe, and nobody reads it."""
    child = make()
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(RunError, match="no sign of life"):
        read(child, [250] * 30_000)


def test_a_process_killed_between_requests_is_named_at_the_next(make: Make) -> None:
    """And where a generator was open, when it is closed or read on."""
    child = make()
    read(child)
    os.kill(child.pid, signal.SIGSEGV)
    with pytest.raises(RunError, match="was killed by SIGSEGV while computing logits"):
        read(child)
    for taken, end in ((1, False), (5, True)):  # of five; what was said before is no answer
        child = make()
        rows = child.rows(IDS, 0)
        for _ in range(taken):
            next(rows)
        time.sleep(0.1)
        os.kill(child.pid, signal.SIGSEGV)
        time.sleep(0.1)
        if end:  # it had said so
            rows.close()
        with pytest.raises(RunError, match="was killed by SIGSEGV while computing logits"):
            read(child) if end else rows.close()


def test_a_closed_engine_says_so(make: Make) -> None:
    """An open request of it is no error."""
    child = make()
    rows = child.rows(IDS, 0)
    next(rows)
    child.close()
    rows.close()
    with pytest.raises(RunError, match="toy: its engine is closed"):
        read(child)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fault": "unloadable"}, "failed while loading (ValueError: no such file)"),
        ({"fault": "leave", "when": "loading"}, "ended with code 7 while loading"),
        ({"fault": "die", "when": "importing"}, "was killed by SIGKILL"),
        ({"fault": "stop", "when": "importing"}, "gave no sign of life for 1 s while loading"),
        ({"fault": "hold", "when": "loading"}, "gave no sign of life for 1 s while loading"),
        ({"vocabulary": 0}, "has a vocabulary of 0 tokens"),
        ({"vocabulary": "300"}, "has a vocabulary of '300' tokens"),
        ({"vocabulary": 300.0}, "has a vocabulary of 300.0 tokens"),
        ({"vocabulary": None}, "has a vocabulary of None tokens"),
    ],
)
def test_what_cannot_be_loaded_is_one_error(
    make: Make, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    """With the log, and no process."""
    with pytest.raises(RunError) as caught:
        make(**options)
    assert f"toy: its engine {said}" in str(caught.value)
    assert left(tmp_path) == ["engine"]


def test_loading_that_never_ends_is_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it shows life; until then it is told that it goes on."""
    monkeypatch.setattr(module, "LOADING", 0.6)
    monkeypatch.setattr(module, "TOLD", 0.2)
    said: list[str] = []
    with pytest.raises(RunError, match="took more than 1 s over loading"):
        Child("toy", DRIVER, {"chunk": 8, "fault": "wait", "when": "loading"}, say=said.append)
    assert said
    assert set(said) <= {"loading toy, for 0 s", "loading toy, for 1 s"}


def test_the_last_lines_of_the_log_are_in_the_message(make: Make, tmp_path: Path) -> None:
    """No more than six, and none of them endless."""
    driver = tmp_path / "talker.py"
    driver.write_text(
        "import sys\n"
        "def load(options):\n"
        "    for i in range(2000):\n"
        "        print(f'line {i}', 'x' * 300, file=sys.stderr)\n"
        "    raise ValueError('enough')\n"
    )
    with pytest.raises(RunError) as caught:
        Child("toy", driver, {"chunk": 8})
    _, *lines = str(caught.value).splitlines()
    assert [line[:13] for line in lines] == [f"  | line {i}" for i in range(1994, 2000)]
    assert max(map(len, lines)) == 204


def test_a_missing_engine_names_what_to_install_and_leaves_nothing(
    make: Make, tmp_path: Path
) -> None:
    """It is the input that is wrong: exit 2."""
    for fault, said, remedy in (
        ("missing", "the toy is not installed in this Python. Run: pip install toy", "Install it"),
        (
            "import",
            "No module named 'no_such_package_of_a_toy'",
            "Run: pip install no_such_package_of_a_toy",
        ),
    ):
        with pytest.raises(InputError) as caught:
            make(fault=fault)
        assert caught.value.key == "model.engine"
        assert f"toy: {said} (Python: {sys.executable})" in str(caught.value)
        assert caught.value.remedy == (
            f"{remedy} there, or name the Python that has it with model.python."
        )
    assert left(tmp_path) == []


def test_a_package_that_breaks_later_is_an_error_of_the_run(make: Make, tmp_path: Path) -> None:
    """What is recorded is kept: exit 4."""
    driver = tmp_path / "late.py"
    driver.write_text(
        "class Model:\n"
        "    vocabulary, chunk, info = 3, 8, {}\n"
        "    def rows(self, ids, first, chunk):\n"
        "        import no_such_package_of_a_toy\n"
        "        yield\n"
        "def load(options):\n"
        "    return Model()\n"
    )
    with pytest.raises(RunError, match=r"failed while computing logits .ModuleNotFoundError"):
        read(Child("toy", driver, {"chunk": 8}))


def test_a_python_that_is_none_is_refused(make: Make, tmp_path: Path) -> None:
    """By the key that names it."""
    (tmp_path / "file").write_text("")
    for python in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError) as caught:
            make(python=str(python))
        assert caught.value.key == "model.python"
        assert f"{python} cannot be run (" in str(caught.value)
    with pytest.raises(RunError, match="ended with code 1 while loading"):
        make(python="/bin/false")
    with pytest.raises(RunError, match=r"a line of no meaning: '.*serve.py"):
        make(python="/bin/echo")


def test_another_version_of_the_protocol_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are named."""
    monkeypatch.setattr(serve, "VERSION", 7)
    with pytest.raises(RunError, match="speaks version 1 of the protocol and not 7"):
        make()


def test_no_room_for_the_slots_is_an_error_that_says_how_much(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than a signal at the first write."""

    def full(file: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_reserve", full)
    with pytest.raises(RunError, match=r"needs 2 MiB in .* of 1000 tokens \(No space left") as e:
        make(chunk=1000)
    assert "a smaller model.chunk needs less" in str(e.value)


def test_a_process_ends_with_the_last_who_knows_it(make: Make, tmp_path: Path) -> None:
    """Without being closed."""
    child = make()
    pid = child.pid
    read(child)
    del child
    gc.collect()
    assert not alive(pid)
    assert left(tmp_path) == []
