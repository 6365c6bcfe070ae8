"""Whether memory ran out: the one place that says how libraries say it."""

from __future__ import annotations

import re

# torch's allocators, by device, and the libraries that ask them for workspace. CUDA's own error is
# a class of its own as well, but one that passes through other code is often raised anew.
_ALLOCATORS = re.compile(
    r"\b(CUDA|HIP|XPU|MPS backend) out of memory"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is Python's, NumPy's or torch's word for it.

    A message that merely speaks of memory, such as a task's own, is not.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_ALLOCATORS.search(str(error)))
