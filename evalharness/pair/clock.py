"""Seconds that a device works, measured without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Seconds spent in `running` blocks; on CUDA by events in the device's own stream."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []

    @property
    def used(self) -> bool:
        """Whether anything was timed."""
        return bool(self._marks)

    @contextmanager
    def running(self, elsewhere: torch.device | None = None) -> Iterator[None]:
        """Time what is started inside; ``elsewhere``: where it is not on the clock's own device."""
        device = elsewhere or self.device
        begin = self._mark(device)
        yield
        self._marks.append((begin, self._mark(device)))

    def _mark(self, device: torch.device) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def seconds(self) -> float:
        if not self.cuda:
            return float(sum(b - a for a, b in self._marks))
        for _, end in self._marks:
            end.synchronize()
        return float(sum(a.elapsed_time(b) for a, b in self._marks)) / 1e3
