"""Nothing reaches the terminal, everything said is kept once, and all is restored."""

from __future__ import annotations

import logging
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from tqdm import tqdm

from evalharness.compat.silence import Messages, quiet, warnings_kept


def test_everything_said_is_collected_and_nothing_is_printed(capfd) -> None:
    """print, stderr, warnings, logging, bars."""
    transformers = logging.getLogger("transformers")
    with quiet() as said:
        print("printed")
        print("to stderr", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("somewhere").warning("logged %d", 1)
        transformers.warning("by transformers")
        logging.getLogger("torch.nested").error("by torch")
        list(tqdm(range(3)))
        sys.stdout.write("no newline")
    assert capfd.readouterr() == ("", "")
    assert said.lines == (
        "printed",
        "to stderr",
        "a warning",
        "logged 1",
        "by transformers",
        "by torch",
        "no newline",
    )


def test_a_message_is_kept_once_on_one_line_without_colour() -> None:
    """Distinct messages, in the order in which they came."""
    messages = Messages()
    for text in ("\x1b[31mred\x1b[0m", "two\n  lines", "red", "[transformers] red", "", " \n"):
        messages.add(text)
    assert messages.lines == ("red", "two lines")


@pytest.mark.parametrize(
    "bar",
    [
        "Loading weights: 100%|████| 272/272 [00:00<00:00, 12194.05it/s]",
        "Loading weights:   0%|          | 0/272 [00:00<?, ?it/s]",
        "3it [00:00, 1000.00it/s]",
        "model.safetensors: 12.0MB/s",
    ],
)
def test_progress_bars_are_dropped(bar: str) -> None:
    """A bar is no message."""
    messages = Messages()
    messages.add(bar)
    assert messages.lines == ()


def test_a_long_message_is_cut() -> None:
    """One line of a report, not a page."""
    messages = Messages()
    messages.add("x" * 2000)
    assert [len(line) for line in messages.lines] == [500]


def test_deprecations_and_debug_records_are_not_messages() -> None:
    """They are for the authors of the libraries."""
    with quiet() as said:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("x is deprecated", FutureWarning, stacklevel=1)
        logging.getLogger("transformers").info("chatter")
    assert said.lines == ()


def test_all_is_restored_after_an_exception() -> None:
    """Streams, filters, handlers, propagation."""
    log, root = logging.getLogger("transformers"), logging.getLogger()
    mine = logging.StreamHandler(sys.stderr)
    log.addHandler(mine)
    root_handler = logging.StreamHandler(sys.stderr)
    root.addHandler(root_handler)

    def state() -> tuple[object, ...]:
        return (
            sys.stdout,
            sys.stderr,
            warnings.showwarning,
            warnings.filters[:],
            log.handlers[:],
            log.propagate,
            root.handlers[:],
        )

    before = state()
    try:
        with pytest.raises(KeyError), quiet():
            raise KeyError("x")
        assert state() == before
    finally:
        log.removeHandler(mine)
        root.removeHandler(root_handler)


def test_a_handler_made_inside_writes_to_the_terminal_afterwards(capsys) -> None:
    """Libraries bind sys.stderr when they are imported."""
    log = logging.getLogger("made.inside")
    with quiet() as said:
        handler = logging.StreamHandler()
        log.addHandler(handler)
        log.warning("inside")
    try:
        log.warning("after")
    finally:
        log.removeHandler(handler)
    assert said.lines == ("inside",)
    assert capsys.readouterr().err == "after\n"


def test_a_log_file_on_the_root_logger_still_gets_records(tmp_path) -> None:
    """Only what writes to the terminal is taken away."""
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger().addHandler(handler)
    try:
        with quiet() as said:
            logging.getLogger("other").warning("kept")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert (tmp_path / "log").read_text() == "kept\n"
    assert said.lines == ("kept",)


def test_it_may_be_nested(capfd) -> None:
    """The inner block takes what is said in it."""
    with quiet() as outer:
        with quiet() as inner:
            print("inner")
        print("outer")
    assert (inner.lines, outer.lines) == (("inner",), ("outer",))
    assert capfd.readouterr() == ("", "")


def test_a_bad_format_string_of_a_library_does_no_harm() -> None:
    """logging would print a traceback."""
    with quiet() as said:
        logging.getLogger("transformers").warning("%d %d", 1)
    assert said.lines == ("%d %d",)


def test_logging_while_models_run_is_kept_off_the_terminal(capfd) -> None:
    """Of libraries and of others; what is printed there is the caller's."""
    with warnings_kept() as warned:
        logging.getLogger("torchao").warning("Failed to load a kernel")
        logging.getLogger("somewhere").error("logged")
        warnings.warn(
            "The global interpreter lock (GIL) has been enabled", RuntimeWarning, stacklevel=1
        )
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)
        print("progress")
    assert capfd.readouterr() == ("progress\n", "")
    assert warned.numerical == ("overflow",)
    assert warned.others[-2:] == ("Failed to load a kernel", "logged")


def test_loguru_goes_where_logging_goes(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """compressed-tensors brings it; its handler is bound to a stream when it is imported."""

    class Logger:
        """As much of loguru's as is asked of it."""

        def __init__(self) -> None:
            sink = types.SimpleNamespace(_stream=sys.stderr)
            handlers = {0: types.SimpleNamespace(_sink=sink)}
            self._core = types.SimpleNamespace(handlers=handlers)
            self.sinks: list[Callable[..., None]] = []

        def remove(self, number: int) -> None:
            del self._core.handlers[number]

        def add(self, sink: Callable[..., None], **_: str) -> None:
            self.sinks.append(sink)

    class Message(str):
        record: dict[str, Any]

    module, message = types.ModuleType("loguru"), Message("Dispatched\n")
    module.logger = logger = Logger()  # type: ignore[attr-defined]
    message.record = {"level": types.SimpleNamespace(no=logging.WARNING)}
    with quiet() as said:
        monkeypatch.setitem(sys.modules, "loguru", module)
    assert (logger._core.handlers, len(logger.sinks)) == ({}, 1)
    with quiet() as said:
        logger.sinks[0](message)
    assert said.lines == ("Dispatched",)
    assert capfd.readouterr() == ("", "")
