"""The command line in a process that is forked from this one, which has imported everything."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, what it said, and what it returned."""

    code: int
    said: str
    value: Any = None


def warm() -> None:
    """Import what every command needs; no thread may be started, which a fork would lose."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)
    import transformers.models.llama.modeling_llama  # noqa: F401

    import evalharness.api
    import evalharness.bisect.run
    import evalharness.bisect.trials
    import evalharness.bisect.verify
    import evalharness.cli.main
    import evalharness.workflow.compare
    import evalharness.workflow.several
    from evalharness.report import render_html
    from tests.synthetic.pair import Pair, result
    from tests.synthetic.policies import policy

    render_html(result(Pair(0.05, blocks=1, documents=6, items=0.1), policy()))
    evalharness.workflow.plan.BLOCK_TOKENS = 400  # three blocks of the project's texts


def forked(work: Callable[[], Any], folder: Path, **environment: str) -> Ended:
    """Do ``work`` in a process of its own, in ``folder``."""
    sys.stdout.flush()
    sys.stderr.flush()
    said_to, said_from = os.memfd_create("said"), os.memfd_create("returned")
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.dup2(said_to, 1)
            os.dup2(said_to, 2)
            os.chdir(folder)
            os.environ |= environment
            value = work()
            os.write(said_from, pickle.dumps(value))
            code = 0
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    texts = []
    for descriptor in (said_to, said_from):
        texts.append(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        os.close(descriptor)
    value = pickle.loads(texts[1]) if texts[1] else None
    return Ended(os.waitstatus_to_exitcode(status), texts[0].decode("utf-8", "replace"), value)


def typed(*arguments: str) -> Callable[[], Any]:
    """The command line with these arguments."""

    def work() -> Any:
        from evalharness.cli.main import main

        sys.argv = ["evalharness", *arguments]
        main()

    return work
