"""The run directory: manifest, records, resume, integrity.

    RUN/manifest.json            what was compared and how; SHA-256 of every other file once done
    RUN/records/NAME-BLOCK.parquet
    RUN/result.json report.html summary.md junit.xml log.jsonl

Every file is written to a temporary name and renamed, so that whatever is there is whole. A block's
records count once ``done-BLOCK`` exists: it is written last (`run.marks`). A lock keeps a second
process out.

A run that has its digests is changed in one step: see `run.staging`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Unpack, cast

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import BaseFileLock, FileLock, Timeout

from evalharness.errors import InputError, RunError
from evalharness.run import staging
from evalharness.run.differences import differences
from evalharness.run.files import make_folder, replacing
from evalharness.run.manifest import MANIFEST, Manifest
from evalharness.run.marks import PREFIX, keep_whole, mark, sha256
from evalharness.run.new_folder import check_new
from evalharness.run.records import SCHEMAS

LOCK = "lock"
RECORDS = "records/"
FORMAT = 1
_DAMAGED = "Restore it from a copy, or run the comparison again."


class Run:
    """One comparison and its directory."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.records = path / "records"
        self._lock: BaseFileLock | None = None
        self._written: set[str] = set()  # by this process, so that seal() knows what is in them
        self.damaged: list[str] = []  # blocks that were found damaged on resuming

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> Run:
        """Start a run in ``path``, which must not exist or be empty."""
        check_new(path)
        run = cls(path, Manifest(**{"format": FORMAT, **manifest}))
        try:
            make_folder(run.records)
        except OSError as error:
            raise InputError(
                f"cannot be made ({error.strerror})",
                path=path,
                key="--out",
                remedy="Give a directory that you may write in.",
            ) from None
        run.acquire()
        run.clear()
        run._save_manifest()
        return run

    @classmethod
    def resume(cls, path: Path, inputs: Mapping[str, Any]) -> Run:
        """Take up an unfinished run that was begun with ``inputs``, keys of the manifest.

        What is not whole is removed; the blocks that were damaged are in ``damaged``.
        """
        run = cls.open(path)
        run.acquire()
        try:
            run.manifest = cls.open(path).manifest
            run._check_manifest()
            found = differences(run.manifest, inputs)
            if found:
                raise InputError(
                    f"this run was begun with other inputs: {'; '.join(found)}",
                    path=path / MANIFEST,
                    remedy="Restore them, or start a new run with another --out.",
                )
            run.settle()
            run.clear()
            for key in ("files", "seconds"):  # measured to the end and judged by nobody
                run.manifest.pop(key, None)  # type: ignore[misc]
            run._save_manifest()
            run.damaged = keep_whole(run.records)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a run for reading, checking nothing but that it is one."""
        file = path / MANIFEST
        if not file.is_file():
            raise InputError(
                "not a run: it has no manifest.json",
                path=path,
                remedy="Give the directory that `evalharness compare` printed.",
            )
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"not valid JSON ({error})", path=file, remedy=_DAMAGED) from None
        found = manifest.get("format", FORMAT) if isinstance(manifest, dict) else None
        if type(found) is not int or found < 1:
            raise InputError(
                f"no manifest of a run (format: {found!r})",
                path=file,
                remedy="Give the directory that `evalharness compare` printed.",
            )
        if found > FORMAT:
            raise InputError(
                f"format {found} is newer than this evalharness reads ({FORMAT})",
                path=file,
                key="format",
                remedy="Upgrade evalharness.",
            )
        return cls(path, cast(Manifest, manifest))

    # -- records

    def write_block(self, block: str, tables: dict[str, pa.Table]) -> None:
        """Append one block's records; it counts, whole, or not at all."""
        files = []
        for name, table in tables.items():
            at = self.place(f"{RECORDS}{name}-{block}.parquet")
            with self._writing(at) as file, open(file, "wb") as sink:
                pq.write_table(table.cast(SCHEMAS[name]), sink, compression="zstd")
            files.append(at)
        self.write_text(f"{RECORDS}{PREFIX}{block}", mark(files))

    def done(self) -> set[str]:
        """The blocks that are recorded."""
        return {p.name.removeprefix(PREFIX) for p in self.records.glob(f"{PREFIX}*")}

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of one kind of record, in block order."""
        done = self.done()
        found = (p.stem.removeprefix(f"{name}-") for p in self.records.glob(f"{name}-*.parquet"))
        return self.rows(name, sorted(done.intersection(found)), columns)

    def rows(self, name: str, blocks: Iterable[str], columns: list[str] | None = None) -> pa.Table:
        """The rows of one kind of record in these blocks, one after the other."""
        schema = SCHEMAS[name]
        if columns is not None:
            schema = pa.schema([schema.field(c) for c in columns])
        files = (self.records / f"{name}-{block}.parquet" for block in blocks)
        try:
            # A file at a time and one thread: for files of this size the machinery of data sets,
            # and its threads, take several times as long as the reading.
            tables = [
                with_missing(pq.ParquetFile(f).read(columns, use_threads=False), schema)
                for f in files
                if f.is_file()
            ]
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"a {name} record cannot be read ({error})", path=self.records
            ) from None
        return pa.concat_tables(tables) if tables else schema.empty_table()

    # -- whole files

    def write_text(self, name: str, text: str) -> Path:
        """Write ``name`` in the run directory; where the run has digests, with the next `seal`."""
        with self._writing(self.place(name)) as file:
            file.write_text(text, encoding="utf-8")
        return self.path / name

    def log(self, kind: str, message: str, **more: Any) -> None:
        """Append one line to log.jsonl."""
        line = json.dumps({"time": time.time(), "kind": kind, "message": message, **more})
        try:
            with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            pass  # a full disk shows, and is told, where it costs records

    def update(self, **values: Unpack[Manifest]) -> None:
        """Set keys of the manifest; where the run has digests, with the next `seal`."""
        self.manifest.update(values)
        if "files" not in self.manifest:
            self._save_manifest()

    def warn(self, texts: Iterable[str]) -> None:
        """Add to the warnings of the result, each once."""
        known = self.manifest.get("warnings", [])
        found = list(dict.fromkeys([*known, *texts]))
        if found != known:
            self.update(warnings=found)

    def seal(self) -> None:
        """Put every file's SHA-256 into the manifest: what is recorded is complete.

        A file that is listed keeps its digest unless this process has written it: what became of
        it since is for `verify` to find. What only grows (the logs) decides nothing.

        Raises
        ------
        InputError : a record that is listed is gone.

        """
        listed = self.manifest.get("files")
        files = {} if listed is None else dict(listed)
        for name in files:
            if name.startswith(RECORDS) and not (self.path / name).is_file():
                raise self._missing(name)
        written = self._written
        if listed is None:  # those of a process that was killed are this run's, too
            written = written | {RECORDS + p.name for p in self.records.iterdir()}
        new = {n: sha256(p) for n in sorted(written) if (p := self.place(n)).is_file()}
        kept = {n: d for n, d in files.items() if not n.endswith(".jsonl")}
        self.manifest["files"] = {**kept, **new}
        self._save_manifest()  # from here on the run is what is staged
        self.settle()
        self._written = set()

    def settle(self) -> None:
        """Put in place what the manifest lists and a process, killed meanwhile, left staged."""
        staging.settle(self.path, self.manifest.get("files", {}))

    def clear(self) -> None:
        """Remove what a process that was cut off left behind; only the holder of the lock may."""
        staging.clear(self.path)

    def verify(self, only: Iterable[str]) -> None:
        """Check the manifest by itself, and the files that it lists and that begin with ``only``.

        Raises
        ------
        InputError : one is missing or was changed, a record was added, or a digest was taken out.

        """
        listed = self.manifest.get("files")
        for key, found in (("sha256", self.manifest.get("sha256")), ("files", listed)):
            if found is None:
                raise InputError(
                    "required and missing: without it nothing shows whether the run was changed",
                    path=self.path / MANIFEST,
                    key=key,
                    remedy=_DAMAGED,
                )
        self._check_manifest()
        for name, digest in self.manifest["files"].items():
            if not name.startswith(tuple(only)):
                continue
            path = self.path / name
            if not path.is_file():
                raise self._missing(name)
            if sha256(path) != digest:
                raise InputError(
                    "was changed after the run (its SHA-256 differs from the manifest's)",
                    path=path,
                    remedy=_DAMAGED,
                )
        for path in self.records.glob("*"):
            if RECORDS + path.name not in self.manifest["files"]:
                raise InputError(
                    "was added after the run (the manifest does not list it)",
                    path=path,
                    remedy=_DAMAGED,
                )

    @property
    def intact(self) -> bool:
        """Whether the manifest is as it was written."""
        return self.manifest.get("sha256") == self._digest()

    def _check_manifest(self) -> None:
        if "sha256" not in self.manifest:
            by = self.manifest.get("evalharness", "another version")
            raise InputError(
                f"was begun by evalharness {by}, which kept no SHA-256 of what it recorded",
                path=self.path / MANIFEST,
                key="sha256",
                remedy="Start a new run with another --out.",
            )
        if not self.intact:
            raise InputError(
                "was changed after the run (it does not have the SHA-256 that it ends with)",
                path=self.path / MANIFEST,
                remedy=_DAMAGED,
            )

    def _missing(self, name: str) -> InputError:
        return InputError("is missing from the run", path=self.path / name, remedy=_DAMAGED)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def acquire(self) -> None:
        """Take the lock, which no other process holds."""
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            refuse_writer(self.path)
        self._lock = lock

    def _digest(self) -> str:
        rest = {key: value for key, value in self.manifest.items() if key != "sha256"}
        text = json.dumps(rest, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _save_manifest(self) -> None:
        self.manifest["sha256"] = self._digest()
        text = json.dumps(self.manifest, indent=1, ensure_ascii=False, sort_keys=True)
        with self._writing(self.path / MANIFEST) as file:
            file.write_text(text + "\n", encoding="utf-8")

    def place(self, name: str) -> Path:
        """Where ``name`` is written: apart, until the next `seal`, where the run has digests."""
        return (
            (self.path / staging.FOLDER / name) if "files" in self.manifest else (self.path / name)
        )

    @contextmanager
    def _writing(self, path: Path) -> Iterator[Path]:
        """A temporary name for ``path``; a full disk is a `RunError` that says so."""
        try:
            make_folder(path.parent)
            with replacing(path) as temporary:
                yield temporary
            if path.name != MANIFEST:
                name = path.relative_to(self.path).as_posix()
                self._written.add(name.removeprefix(f"{staging.FOLDER}/"))
        except OSError as error:
            why = error.strerror or error
            hint = ": free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise RunError(f"{path}: cannot be written ({why}){hint}") from error


class InMemory:
    """Records that were never written, for whoever reads those of a `Run`."""

    def __init__(self, manifest: Manifest, tables: Mapping[str, pa.Table]) -> None:
        self.manifest, self.tables = manifest, tables

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of one kind of record."""
        found = self.tables.get(name, SCHEMAS[name].empty_table())
        return found if columns is None else found.select(columns)


def with_missing(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` with nulls for what ``schema`` has and an earlier version did not record."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table if table.column_names == schema.names else table.select(schema.names)


def refuse_writer(path: Path) -> NoReturn:
    """Say that another process holds the lock of the run at ``path``."""
    raise InputError(
        "another process is writing this run",
        path=path,
        remedy="Wait for it, or give another --out.",
    ) from None
