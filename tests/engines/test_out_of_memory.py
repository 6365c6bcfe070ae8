"""What counts as running out of memory: the allocators' own words, and nothing like them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evalharness.engines.out_of_memory import is_out_of_memory

HUGE = 1 << 60


def raised(action: Callable[[], object]) -> BaseException:
    """What ``action`` raises."""
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        action()
    return caught.value


@pytest.mark.parametrize(
    "action",
    [
        lambda: torch.empty(HUGE, dtype=torch.int8),
        lambda: np.empty(HUGE, dtype=np.int8),
        lambda: bytearray(HUGE),
    ],
    ids=["torch", "numpy", "python"],
)
def test_what_the_libraries_raise_is_known(action: Callable[[], object]) -> None:
    """The real errors, on this machine."""
    assert is_out_of_memory(raised(action))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
        "MPS backend out of memory (MPS allocated: 18.00 GB)",
        "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you "
        "tried to allocate 8 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_what_other_devices_raise_is_known(text: str) -> None:
    """As torch words it elsewhere."""
    assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(torch.OutOfMemoryError(text))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the memory of this agent is not enough memory for the task"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        KeyError("out of memory"),
        ValueError("CUDA out of memory"),
    ],
)
def test_an_error_that_speaks_of_memory_is_not(error: Exception) -> None:
    """A smaller batch would hide it."""
    assert not is_out_of_memory(error)
