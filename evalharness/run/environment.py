"""Versions, hardware and memory of this process, as the manifest keeps them."""

from __future__ import annotations

import platform
import re
import resource
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


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1] if found else platform.machine()
