"""Claim: a command cut off at any file operation can be taken up, and ends as one that was not.

Each command runs once on tiny random models while every file operation below its folder is watched
(`tests/crash/disk.py`). What a kill leaves before each, and what a loss of power leaves (unsynced
writes and names dropped; names without their bytes; some of either), is put aside; then the command
is taken up in each of these folders as a user would, once more killed on the way or not, and must
end with the same exit code and the same numbers, records and files.

    python benchmarks/crash_points.py [--command compare|several|gate|bisect|baseline|bless]
        [--every N [--first K]] [--power] [--twice]

Prints each point that is wrong and a table: points, unusable, different. Exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.crash.commands import COMMANDS, project
from tests.crash.disk import LOSSES
from tests.crash.forks import forked, warm
from tests.crash.sweep import Sweep


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", choices=COMMANDS, action="append")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one point in N")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="of them, from this on")
    parser.add_argument("--power", action="store_true", help="losses of power besides kills")
    parser.add_argument("--twice", action="store_true", help="kill what takes it up as well")
    options = parser.parse_args()
    losses = LOSSES if options.power else ()
    warm()
    rows = []
    with tempfile.TemporaryDirectory(prefix="crash-") as name:
        root = Path(name)
        (root / "project").mkdir()
        made = forked(lambda: project(root / "project"), root)
        assert made.code == 0, made.said
        for command in options.command or COMMANDS:
            folder = root / command
            folder.mkdir()
            started, found = time.perf_counter(), Counter[tuple[str, str]]()
            sweep = Sweep(COMMANDS[command], root / "project", folder)
            for point in sweep.points(losses, options.every, options.twice, options.first):
                found[point.how, point.wrong.partition(":")[0]] += 1
                if point.wrong:
                    at = f"{command}, {point.how} before {point.number}: {point.operation}"
                    print(f"{at}: {point.wrong}", flush=True)
            took = time.perf_counter() - started
            for how in dict.fromkeys(how for how, _ in found):
                of = {kind: n for (h, kind), n in found.items() if h == how}
                rows.append(
                    (command, how, sum(of.values()), of.get("unusable", 0), of.get("different", 0))
                )
            print(f"{command}: {sum(found.values())} points in {took:.0f} s", flush=True)
    print(f"{'command':10} {'cut off by':10} {'points':>7} {'unusable':>9} {'different':>10}")
    for row in rows:
        print("{:10} {:10} {:7} {:9} {:10}".format(*row))
    return int(any(unusable or different for *_, unusable, different in rows))


if __name__ == "__main__":
    sys.exit(main())
