"""A limit as a policy writes it: ``1.02``, ``98%``, ``2pp``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

Suffix = Literal["", "%", "pp"]

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%|pp)?")


@dataclass(frozen=True)
class Limit:
    """``number`` in the metric's own unit (2% and 2pp are 0.02), and how it was written."""

    number: float
    suffix: Suffix = ""

    def __str__(self) -> str:
        """As in the file."""
        if not self.suffix:
            return f"{self.number:.10g}"
        return f"{float(Decimal(repr(self.number)) * 100):.10g}{self.suffix}"


def parse_limit(value: Any) -> Any:
    """Read a number, or a string with ``%`` or ``pp``; None and a `Limit` pass through."""
    if value is None or isinstance(value, Limit):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return Limit(float(value))
    # YAML 1.1 reads 1e-3, without a dot, as a string.
    if isinstance(value, str) and (match := _FORM.fullmatch(value.strip())):
        suffix: Suffix = match[2] or ""  # type: ignore[assignment]  # the pattern allows no other
        scaled = Decimal(match[1]) / 100 if suffix else Decimal(match[1])
        if math.isfinite(float(scaled)):
            return Limit(float(scaled), suffix)
    raise ValueError(f"must be a number or a percentage (got {value!r})")
