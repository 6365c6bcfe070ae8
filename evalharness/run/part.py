"""Part of a run, for whoever reads the records of a whole one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from evalharness.run.directory import Run
from evalharness.run.manifest import Manifest


class Recorded(Protocol):
    """Whatever holds records and says what they are of: a run, part of one, or memory."""

    @property
    def manifest(self) -> Manifest:
        """What was compared and how."""

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of one kind of record."""


class Part:
    """Some blocks of a run."""

    def __init__(self, run: Run, blocks: Sequence[str]) -> None:
        self.run, self.blocks = run, blocks

    @property
    def manifest(self) -> Manifest:
        """The run's."""
        return self.run.manifest

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of one kind of record, in the order of the blocks."""
        return self.run.rows(name, self.blocks, columns)
