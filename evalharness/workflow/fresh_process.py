"""What runs in a fresh process: load both models, let one probe measure, hand over its tables.

    python -m evalharness.workflow.fresh_process        (started by `workflow.apart`)

A line of JSON comes in on stdin, which then stays open: when it ends, whoever asked is gone, and so
is this process. Lines of JSON go out on what was stdout, saying what is being done and at last how
it ended; whatever libraries print goes to stderr. Tables are written where the request says.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from evalharness.errors import EvalHarnessError
from evalharness.spec import permissions


def main() -> int:
    """Do what stdin asks; 0 where the tables are written."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        with permissions.granted(allow_code=asked["allow_code"], confined=asked["confined"]):
            _measure(asked, out)
    except EvalHarnessError as error:
        return _say(out, error=str(error))
    except Exception as error:  # whatever a library raises: one line of it, and all of it on stderr
        import traceback

        traceback.print_exc()
        return _say(out, error=f"{type(error).__name__}: {error}".splitlines()[0])
    _say(out, done=True)
    return 0


def _measure(asked: dict[str, Any], out: TextIO) -> None:
    import pyarrow.parquet as pq

    from evalharness.pair.side import Side
    from evalharness.probes.registry import probe_named
    from evalharness.progress import Progress
    from evalharness.spec.model import ModelSpec
    from evalharness.workflow.memory_plan import MemoryPlan
    from evalharness.workflow.reference import load_side

    probe = probe_named(asked["probe"])
    assert probe.apart is not None
    memory = MemoryPlan(asked["mode"], 1, 1, ())

    def say(text: str) -> None:
        _say(out, doing=text)

    names = ("reference", "candidate")
    sides: dict[str, Side] = {}
    # Which model lies where in memory may matter: each comes first in every second process.
    for name in names if asked["number"] % 2 else names[::-1]:
        spec = ModelSpec.model_validate(asked[name])
        say(f"loading {spec.name}")
        sides[name] = load_side(spec, asked["device"], memory, Progress())
    tables = probe.apart.measure(
        sides["reference"],
        sides["candidate"],
        asked["request"],
        asked["number"],
        say,
    )
    for name, table in tables.items():
        pq.write_table(table, Path(asked["tables"]) / f"{name}.parquet")


def _say(out: TextIO, **what: Any) -> int:
    out.write(json.dumps(what) + "\n")
    return 1


def _end_with_the_parent() -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
