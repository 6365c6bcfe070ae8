"""Versions, hardware and memory of this process, as the manifest keeps them."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from evalharness.version import __version__

if TYPE_CHECKING:
    import torch


def environment(*devices: torch.device) -> dict[str, str]:
    """Versions and hardware."""
    import torch

    names = [torch.cuda.get_device_name(d) if d.type == "cuda" else _cpu() for d in devices]
    found = {
        "evalharness": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "platform": platform.platform(),
        "device": " and ".join(dict.fromkeys(names)),
        "threads": str(torch.get_num_threads()),
    }
    for package in ("lm_eval", "bitsandbytes", "torchao", "peft", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def configure(*, offline: bool = False) -> None:
    """Set what the libraries read from the environment when they are first loaded.

    The command line and the Python API call it; call it yourself, before NumPy and torch are
    imported, where your program imports them first. What the environment says already stays, and
    the garbage collector, whose threshold the command line raises, is left to your program.

    Parameters
    ----------
    offline : never reach for the network.

    """
    # Idle compute threads that spin take a busy machine's cores from those that work: beside one
    # other process on two cores the pass takes three times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Zeroing huge pages for arrays that live a second can cost more than the arithmetic on them.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    if offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def peak_memory() -> int | None:
    """Largest resident size of this process so far, bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # POSIX only
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1] if found else platform.machine()
