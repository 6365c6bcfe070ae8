"""Freed memory stays with the process, where the C library is glibc."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from evalharness.engines.device_memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_large_tensor_gets_the_memory_of_the_last_one() -> None:
    """Else the system clears every page of it anew: 6,144 of 24 MiB."""
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(16):  # the first ones may find no place
        torch.empty(24 << 18).fill_(0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 4 * 6144
