"""A folder whose file operations are watched, and what a kill or a loss of power leaves of it.

A kill leaves what the operations so far have done: the kernel holds it. When power fails, the disk
holds what was synced: a file's bytes at its last fsync, a folder's names at its own. What was done
since is lost (``dropped``); or the names were written and the bytes behind them were not
(``names``); or some of either (``some``), in no order. A rename is there or not, never half.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
LOSSES = ("dropped", "names", "some")


@dataclass(eq=False)
class File:
    """Bytes; ``synced`` are those that the disk holds."""

    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """Names; ``synced`` are those that the disk holds."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


def as_on_disk(path: Path) -> File | Folder:
    """What lies at ``path``, all of it synced."""
    if not path.is_dir():
        return File(path.read_bytes())
    names = {child.name: as_on_disk(child) for child in path.iterdir()}
    return Folder(names, dict(names))


class Disk:
    """The folder ``root``; ``before`` is called with each operation, in words, before it is done.

    A write is also met when half of it is done.
    """

    def __init__(self, root: Path, before: Callable[[str], None]) -> None:
        self.root, self._tell = root.resolve(), before
        found = as_on_disk(root)
        assert isinstance(found, Folder)
        self.tree = found
        self._busy = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Operations inside are met."""
        patches: list[tuple[Any, str, Any]] = [
            (os, "open", self._os_open),
            (os, "fsync", self._fsync),
            (os, "replace", self._replace),
            (os, "rename", self._replace),
            (os, "unlink", self._remove),
            (os, "remove", self._remove),
            (os, "rmdir", self._remove),
            (os, "mkdir", self._mkdir),
            (io, "open", self._open),
            (builtins, "open", self._open),
        ]
        real = [(place, name, getattr(place, name)) for place, name, _ in patches]
        self._real = {f"{place.__name__}.{name}": function for place, name, function in real}
        for place, name, function in patches:
            setattr(place, name, function)
        try:
            yield
        finally:
            for place, name, function in real:
                setattr(place, name, function)

    # -- what is watched

    def _inside(self, path: Any, dir_fd: int | None = None) -> Path | None:
        """``path`` below the root; None: it is elsewhere, or the operation is our own."""
        if self._busy or isinstance(path, int):
            return None
        folder = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        full = Path(os.path.normpath(os.path.join(folder, os.fspath(path))))
        return full if full.is_relative_to(self.root) else None

    def _meet(self, what: str, path: Path) -> None:
        self._busy = True
        try:
            self._tell(f"{what} {path.relative_to(self.root)}")
        finally:
            self._busy = False

    def _node(self, path: Path) -> tuple[Folder, str]:
        """The folder that ``path`` is in, and its name there."""
        folder: File | Folder = self.tree
        for part in path.relative_to(self.root).parts[:-1]:
            assert isinstance(folder, Folder)
            folder = folder.names[part]
        assert isinstance(folder, Folder)
        return folder, path.name

    def _made(self, path: Path, node: File | Folder) -> None:
        folder, name = self._node(path)
        folder.names.setdefault(name, node)

    def _os_open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        inside = self._inside(path, named.get("dir_fd")) if flags & WRITES else None
        if inside is not None:
            self._meet("open", inside)
        found: int = self._real["os.open"](path, flags, *more, **named)
        if inside is not None:
            self._made(inside, File())
        return found

    def _open(self, file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        inside = self._inside(file) if set(mode) & set("wax+") else None
        if inside is None:
            return self._real["io.open"](file, mode, *more, **named)
        self._meet("open", inside)
        raw = _Raw(inside, mode.replace("b", "").replace("t", ""), self)
        self._made(inside, File())
        buffered = io.BufferedWriter(raw) if "+" not in mode else io.BufferedRandom(raw)  # type: ignore[arg-type]
        if "b" in mode:
            return buffered
        known = dict(zip(("buffering", "encoding", "errors", "newline"), more)) | named
        known.pop("buffering", None)
        return io.TextIOWrapper(buffered, **known)

    def _fsync(self, fd: Any) -> None:
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if self._inside(path) is not None:
            self._meet("fsync", path)
            if path == self.root:
                node: File | Folder = self.tree
            else:
                folder, name = self._node(path)
                node = folder.names[name]
            if isinstance(node, Folder):
                node.synced = dict(node.names)
            else:
                self._busy = True
                node.synced = path.read_bytes()
                self._busy = False

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        a, b = self._inside(source, named.get("src_dir_fd")), self._inside(target)
        if b is not None:
            self._meet("replace", b)
        self._real["os.replace"](source, target, **named)
        if a is not None and b is not None:
            old, name = self._node(a)
            new, other = self._node(b)
            new.names[other] = old.names.pop(name)

    def _remove(self, path: Any, **named: Any) -> None:
        inside = self._inside(path, named.get("dir_fd"))
        is_folder = stat.S_ISDIR(os.lstat(path, **named).st_mode)
        if inside is not None:
            self._meet("remove", inside)
        self._real["os.rmdir" if is_folder else "os.unlink"](path, **named)
        if inside is not None:
            folder, name = self._node(inside)
            del folder.names[name]

    def _mkdir(self, path: Any, *more: Any, **named: Any) -> None:
        inside = self._inside(path, named.get("dir_fd"))
        if inside is not None:
            self._meet("mkdir", inside)
        self._real["os.mkdir"](path, *more, **named)
        if inside is not None:
            self._made(inside, Folder())

    # -- what is left

    def killed(self, to: Path) -> None:
        """Put at ``to`` what a kill leaves now."""
        shutil.copytree(self.root, to)

    def powerless(self, to: Path, loss: str, seed: int = 0) -> None:
        """Put at ``to`` what a loss of power leaves now."""
        chance = random.Random(seed)
        written: dict[int, bool] = {}  # by node: whether its present name is on the disk

        def is_written(node: File | Folder) -> bool:
            if loss == "some":
                return written.setdefault(id(node), chance.random() < 0.5)
            return loss == "names"

        def bytes_of(node: File, live: Path) -> bytes:
            data = live.read_bytes() if live.is_file() else node.synced
            if loss != "some" or data == node.synced:
                return node.synced
            return chance.choice((node.synced, data, data[: chance.randrange(len(data) + 1)]))

        def put(node: File | Folder, live: Path, to: Path) -> None:
            if isinstance(node, File):
                to.write_bytes(bytes_of(node, live))
                return
            to.mkdir()
            for name in sorted({*node.names, *node.synced}):
                now, then = node.names.get(name), node.synced.get(name)
                chosen = now if is_written(now or then) else then  # type: ignore[arg-type]
                if chosen is not None:
                    put(chosen, live / name if chosen is now else self.root / "gone", to / name)

        put(self.tree, self.root, to)


class _Raw(io.FileIO):
    """A file whose writes are met."""

    def __init__(self, path: Path, mode: str, disk: Disk) -> None:
        self._disk, self._path = disk, path
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._disk._inside(self._path) is None or not len(view):
            return super().write(data)
        self._disk._meet("write", self._path)
        half = len(view) // 2
        super().write(view[:half])
        self._disk._meet("write half of", self._path)
        super().write(view[half:])
        return len(view)
