"""The command that makes a run, as data: the manifest keeps it, and a run is resumed with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

_NAMES_THE_RUN = ("out", "resume")


@dataclass(frozen=True)
class Command:
    """A command of ours with its arguments and options; ``str()`` is quoted for a shell.

    Parameters
    ----------
    name : such as ``compare``.
    arguments : what it takes by position, in order.
    options : values by long name, without the dashes. None and False are options that were not
        given, True is a flag, and a list is an option that was given several times.

    """

    name: str
    arguments: tuple[str | Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        words = ["evalharness", self.name, *map(str, self.arguments)]
        for name, value in self.options.items():
            for one in value if isinstance(value, list | tuple) else [value]:
                if one is not None and one is not False:
                    words += [f"--{name}"] if one is True else [f"--{name}", str(one)]
        return shlex.join(words)

    @classmethod
    def gate(cls, run: Path) -> Command:
        """The command that decides ``run`` under a policy yet to be named."""
        return cls("gate", (run,), {"gates": "FILE", "write": True})

    def resuming(self, run: Path) -> Command:
        """The same command, which takes up ``run`` and begins no other."""
        kept = {k: v for k, v in self.options.items() if k not in _NAMES_THE_RUN}
        return replace(self, options={**kept, "resume": run})


def add_resume(run: Path) -> str:
    """What to do about an unfinished ``run`` whose command is not known."""
    return f"add {shlex.join(['--resume', str(run)])} to the command that began it."
