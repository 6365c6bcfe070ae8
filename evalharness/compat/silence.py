"""Silence for chatty libraries; what they said is kept, one line each.

transformers, torch, accelerate, bitsandbytes and torchao speak through ``warnings``, ``logging``,
progress bars and ``print``. Inside `quiet()` none of it reaches the terminal: distinct messages
are collected for the log and for ``result.warnings``. Text written below Python (to file
descriptor 1 or 2 by a C library) is out of reach.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_LIBRARIES = (
    "transformers",
    "torch",
    "accelerate",
    "bitsandbytes",
    "torchao",
    "compressed_tensors",
    "peft",
    "huggingface_hub",
    "gguf",
    "datasets",
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BAR = re.compile(r"\d+%\||\d+(\.\d+)?\s?([a-zA-Z]?B|it|s)/(s|it)\b|\d+it \[")
_PREFIX = re.compile(
    r"^(\[\w+\]\s|[VDIWEC]\d{4} [\d:.]+ \d+ \S+:\d+\]\s|(DEBUG|INFO|WARNING|ERROR):\S+:)"
)
_MOST = 500  # characters of one message

# Said at every import or load whatever the model is; nothing a reader could act on.
_HARMLESS = re.compile(
    r"^Failed to load .*(\.so\b|kernels)|register_constant\(\) on Enum subclasses is deprecated"
    r"|^Skipping import of cpp extensions|^Offline mode: forcing local_files_only"
    r"|torch\.jit\.script\w*` is deprecated|Detected no triton"
    r"|^\w+ LOAD REPORT from: |ImageProcessor` requires torchvision"
    r"|NOTE: Redirects are currently not supported"
    r"|^The global interpreter lock \(GIL\) has been enabled to load module"
    r"|^(Dispatching|Decompressing) model"
)

# A RuntimeWarning that is about a module, not about numbers.
_OF_IMPORTS = re.compile(r"^The global interpreter lock \(GIL\) has been enabled")


class Messages:
    """Distinct messages in the order in which they came."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def add(self, text: str) -> None:
        """Keep ``text`` as one line, without colour, unless it is a bar, noise or known."""
        line = " ".join(_ANSI.sub("", text).split())
        line = _PREFIX.sub("", line)
        if line and not _BAR.search(line) and not _HARMLESS.search(line):
            self._seen.setdefault(line if len(line) <= _MOST else line[: _MOST - 1] + "…")

    @property
    def lines(self) -> tuple[str, ...]:
        """What was said so far."""
        return tuple(self._seen)


class _Tap(io.TextIOBase):
    """A stream that collects lines while open, and passes through once closed to collecting.

    Handlers that a library creates meanwhile keep a reference to this stream; they must find the
    terminal again afterwards.
    """

    def __init__(self, messages: Messages, real: TextIO) -> None:
        self._messages, self._real, self._rest, self.collecting = messages, real, "", True

    def write(self, text: str) -> int:
        if not self.collecting:
            return self._real.write(text)
        *lines, self._rest = re.split(r"[\r\n]", self._rest + text)
        for line in lines:
            self._messages.add(line)
        return len(text)

    def flush(self) -> None:
        if not self.collecting:
            self._real.flush()

    def finish(self) -> None:
        """Collect what is left without a newline, then pass everything through."""
        self._messages.add(self._rest)
        self._rest, self.collecting = "", False

    def isatty(self) -> bool:
        return False if self.collecting else self._real.isatty()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._real.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._real, "encoding", None) or "utf-8"


class _Collector(logging.Handler):
    def __init__(self, messages: Messages) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._messages.add(record.getMessage())
        except Exception:  # a bad format string of theirs must not stop the load
            self._messages.add(str(record.msg))


class Warned:
    """Warnings that Python code gave, one line each, once."""

    def __init__(self) -> None:
        self._numerical, self._others, self.logged = Messages(), Messages(), Messages()

    def add(self, text: str, category: type[Warning]) -> None:
        """Keep a warning; one about numbers, such as an overflow, is for whoever reads them."""
        numerical = issubclass(category, RuntimeWarning) and not _OF_IMPORTS.search(text)
        (self._numerical if numerical else self._others).add(text)

    @property
    def numerical(self) -> tuple[str, ...]:
        """About numbers: they belong beside the result."""
        return self._numerical.lines

    @property
    def others(self) -> tuple[str, ...]:
        """About anything else, and what libraries logged: they belong into the log."""
        return (*self._others.lines, *self.logged.lines)


@contextmanager
def warnings_kept() -> Iterator[Warned]:
    """Keep warnings and what is logged off the terminal while models run; nothing is ignored.

    bitsandbytes, say, warns at every forward pass of what it does by design: once is enough.
    """
    warned = Warned()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        warned.add(str(message), category)

    with warnings.catch_warnings(), _logs_into(warned.logged):
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield warned


@contextmanager
def quiet() -> Iterator[Messages]:
    """Collect warnings, log records of level WARNING and up, bars and prints; restore after.

    Yields
    ------
    Messages : filled while the block runs; read ``.lines`` at any time.

    Notes
    -----
    Streams and logging handlers belong to the process: use it from one thread at a time. Handlers
    that write elsewhere than to the terminal, such as a log file on the root logger, stay.

    """
    messages = Messages()
    kept = (sys.stdout, sys.stderr)
    taps = (_Tap(messages, sys.stdout), _Tap(messages, sys.stderr))

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        for_authors = issubclass(category, DeprecationWarning | PendingDeprecationWarning)
        if not for_authors and not (category is FutureWarning and "deprecated" in str(message)):
            messages.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        with _logs_into(messages):
            sys.stdout, sys.stderr = taps
            try:
                yield messages
            finally:
                sys.stdout, sys.stderr = kept
                for tap in taps:
                    tap.finish()


@contextmanager
def _logs_into(messages: Messages) -> Iterator[None]:
    """Within the block, what would be logged to the terminal goes to ``messages``."""
    collector = _Collector(messages)
    before = {log: (log.handlers[:], log.propagate) for log in _with_handlers()}
    for log in before:
        if log.name in _LIBRARIES:
            log.handlers, log.propagate = [collector], False
        elif log.name == "root" or any(_on_terminal(h) for h in log.handlers):
            others = [h for h in log.handlers if not _on_terminal(h)]
            log.handlers = [*others, collector]
    _loguru_to_logging()
    try:
        yield
    finally:
        _loguru_to_logging()  # imported inside the block, it is bound to a stream of it
        for log, (handlers, propagate) in before.items():
            # A library imported inside the block has set up its own logging: let it be.
            fresh = [h for h in log.handlers if h is not collector and h not in handlers]
            log.handlers = handlers + fresh
            log.propagate = log.propagate if fresh else propagate


def _loguru_to_logging() -> None:
    """Have loguru, where a library brought it, log as everything else does, not to the terminal."""
    loguru = sys.modules.get("loguru")
    if loguru is None:
        return
    logger = loguru.logger
    for number, handler in list(logger._core.handlers.items()):
        stream = getattr(getattr(handler, "_sink", None), "_stream", None)
        if isinstance(stream, _Tap) or _is_terminal(stream):
            logger.remove(number)
            logger.add(_to_logging, level="WARNING", format="{message}")


def _to_logging(message: Any) -> None:
    logging.getLogger("compressed_tensors").log(message.record["level"].no, str(message).rstrip())


def _with_handlers() -> list[logging.Logger]:
    """The root logger, the libraries', and every other that has a handler of its own."""
    libraries = [logging.getLogger(name) for name in _LIBRARIES]
    known = list(logging.root.manager.loggerDict.values())
    others = [log for log in known if isinstance(log, logging.Logger) and log.handlers]
    return list(dict.fromkeys([logging.root, *libraries, *others]))


def _on_terminal(handler: logging.Handler) -> bool:
    return _is_terminal(getattr(handler, "stream", None))


def _is_terminal(stream: object) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return stream is not None and any(stream is s for s in streams)
