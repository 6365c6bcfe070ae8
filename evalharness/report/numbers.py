"""Numbers with the digits that their interval supports, and no others.

An estimate of 1.01834 in [1.0121, 1.0246] is shown as ``1.0183 [1.0121, 1.0246]``: two significant
digits of the half-width decide the decimals of all three. Beside a limit, digits are added
until the end that decided the gate no longer reads like the limit itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from evalharness.errors import plural
from evalharness.metrics import REGISTRY
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import EngineControl, GateResult

MISSING = "—"
_MOST_DECIMALS = 6
_WRITTEN = 8  # significant digits beyond which nobody wrote a limit by hand
_SMALL, _LARGE = 1e-3, 1e7  # beyond, an exponent reads better than zeros
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class NumberText(str):
    """A formatted number: plain ASCII, until a page sets it with :func:`typeset`."""

    __slots__ = ()


def typeset(text: NumberText) -> str:
    """Return a number with a true minus sign; the one of an exponent stays, to be copied."""
    return re.sub(r"(?<![\de])-(?=\d)", "−", text)


@dataclass(frozen=True)
class Shown:
    """An estimate as text; ``interval`` is ``""`` where there is none."""

    value: NumberText
    low: NumberText
    high: NumberText

    @property
    def interval(self) -> NumberText:
        """Return ``[low, high]``, or nothing."""
        return NumberText(f"[{self.low}, {self.high}]" if self.low else "")

    def __str__(self) -> str:
        """Return ``value [low, high]``."""
        return f"{self.value} {self.interval}".rstrip()


def decimals(value: float | None, low: float | None = None, high: float | None = None) -> int:
    """Return the decimals to show: two significant digits of the interval's half-width.

    Without an interval, or with one of no width, up to four significant digits of the value,
    trailing zeros left out.
    """
    if low is not None and high is not None and high > low:
        return max(0, 1 - _exponent((high - low) / 2))
    if not value:
        return 0
    places = max(0, 3 - _exponent(value))
    while places and abs(round(value, places - 1) - round(value, places)) < 10.0 ** -(places + 2):
        places -= 1
    return places


def number(x: float | None, places: int, *, signed: bool = False) -> NumberText:
    """Format ``x`` to ``places`` decimals; scientific where a plain number would be unreadable.

    >>> number(0.0123456, 4), number(3.1e-7, 8), number(12345.6, 0), number(-0.0, 2, signed=True)
    ('0.0123', '3.1e-7', '12,346', '0.00')
    """
    if x is None:
        return NumberText(MISSING)
    sign = "+" if signed else "-"
    if x == 0:
        return NumberText(f"{0:.{places}f}" if places <= _MOST_DECIMALS else "0")
    if abs(x) >= _LARGE or (places > _MOST_DECIMALS and abs(x) < _SMALL):
        digits = 3 + places if abs(x) >= _LARGE else max(places + _exponent(x), 1)
        mantissa, exponent = f"{x:{sign}.{digits}e}".split("e")
        return NumberText(f"{mantissa}e{int(exponent)}")
    text = f"{x:{sign},.{places}f}"
    return NumberText(text if any(c in "123456789" for c in text) else text.lstrip("+-"))


def shown(
    value: float | None, low: float | None, high: float | None, *, signed: bool = False
) -> Shown:
    """Format a value and its interval with one number of decimals."""
    return _shown(value, low, high, decimals(value, low, high), signed)


def estimate(e: Estimate) -> Shown:
    """Format an estimate; a shift carries its sign."""
    found = shown(e.value, e.low, e.high, signed=is_shift(e.id))
    return _at_least(found) if e.at_least else found


@dataclass(frozen=True)
class GateNumbers:
    """A gate's numbers as text: the estimate, the deciding end of its interval and the limit."""

    observed: Shown
    bound: NumberText
    limit: NumberText


def interval_words(e: Estimate) -> str:
    """The interval; in words where both ends are the value, "" where there is none.

    Only what was counted is exact. Where no document differed from another nothing is known of
    those that were not drawn.
    """
    if e.low is None or e.low != e.high:
        return estimate(e).interval
    counted = e.id in REGISTRY and REGISTRY[e.id].deterministic
    return "exact" if counted else "no variation seen"


def gate(g: GateResult) -> GateNumbers:
    """Format a gate so that nothing which differs from its limit reads the same as the limit."""
    places = decimals(g.observed, g.low, g.high)
    if g.threshold is not None:
        ends = [x for x in (g.observed, g.low, g.high, g.bound) if x is not None]
        places = _apart(places, ends, g.threshold)
    signed = is_shift(g.metric)
    observed = _shown(g.observed, g.low, g.high, places, signed)
    return GateNumbers(
        _at_least(observed) if g.at_least else observed,
        number(g.bound, places, signed=signed),
        NumberText(
            MISSING
            if g.threshold is None
            else f"{'≤' if g.side == 'max' else '≥'} {limit(g.threshold, signed=signed)}"
        ),
    )


def limit(x: float, *, signed: bool = False) -> str:
    """Format a limit as its author wrote it: the shortest form, never padded or rounded.

    One that was computed, from a baseline or the reference, has six significant digits.
    """
    if len(f"{abs(x):.12g}".partition("e")[0].replace(".", "").lstrip("0")) > _WRITTEN:
        x = float(f"{x:.6g}")
    if x == 0 or not 1e-4 <= abs(x) < 1e7:
        mantissa, _, exponent = f"{x:.12g}".partition("e")
        text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    else:
        text = f"{x:.12f}".rstrip("0").rstrip(".")
    return f"+{text}" if signed and x > 0 else text


def figures(x: float | None, digits: int = 3) -> NumberText:
    """Format a number that has no interval to ``digits`` significant digits."""
    if x is None or x == 0:
        return NumberText(MISSING if x is None else "0")
    return number(x, max(0, digits - 1 - _exponent(x)))


def noise_floor(e: Estimate) -> NumberText:
    """Format a noise floor to the decimals of its estimate, or finer where those would hide it."""
    if e.noise_floor is None:
        return NumberText(MISSING)
    places = decimals(e.value, e.low, e.high)
    rounding = abs(round(e.noise_floor, places) - e.noise_floor)
    if rounding > abs(e.noise_floor) / 20:
        return figures(e.noise_floor, 2)
    return number(e.noise_floor, places)


def byte_size(n: float | None) -> str:
    """Format bytes with a binary unit; None: not measured.

    >>> byte_size(269_000_000)
    '257 MiB'
    """
    if n is None:
        return MISSING
    size, unit = float(n), 0
    while abs(size) >= 1024 and unit < len(_BYTES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_BYTES[unit]}" if unit == 0 else f"{_three(size)} {_BYTES[unit]}"


def duration(seconds: float) -> str:
    """Format seconds: ``850 µs``, ``12.4 ms``, ``3.21 s``, ``4 min 05 s``."""
    if seconds == 0:
        return "0 s"
    if abs(seconds) < 1e-3:
        return f"{_three(seconds * 1e6)} µs"
    if abs(seconds) < 1:
        return f"{_three(seconds * 1e3)} ms"
    if abs(seconds) < 120:
        return f"{_three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes / 60:.1f} h"


def count(n: int) -> str:
    """Format a count with thousands separated; 0 where nothing was counted."""
    return f"{n:,}"


def large(n: int) -> str:
    """Format a large count for reading: ``134.5 M``, ``7.24 B``.

    >>> large(134_515_008)
    '135 M'
    """
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**4, "k")):
        if n >= size:
            return f"{_three(n / (1000 if letter == 'k' else size))} {letter}"
    return f"{n:,}"


def percent(confidence: float) -> str:
    """Format a confidence (0–1) as ``95%`` or ``99.9%``."""
    return f"{confidence * 100:.6g}%"


def is_shift(metric: str) -> bool:
    """Return whether a metric is a difference, whose sign matters."""
    return metric in REGISTRY and REGISTRY[metric].difference


def _shown(
    value: float | None, low: float | None, high: float | None, places: int, signed: bool
) -> Shown:
    has_interval = low is not None and high is not None
    return Shown(
        number(value, places, signed=signed),
        number(low, places, signed=signed) if has_interval else NumberText(""),
        number(high, places, signed=signed) if has_interval else NumberText(""),
    )


def _at_least(found: Shown) -> Shown:
    """A lower bound, marked as one."""
    missing = found.value == MISSING
    return found if missing else replace(found, value=NumberText(f"≥ {found.value}"))


def _apart(places: int, ends: Iterable[float], threshold: float) -> int:
    """Return the decimals at which every end that differs from the threshold reads differently."""
    differing = [x for x in ends if x != threshold]
    for more in range(places, places + 14):
        at_limit = number(threshold, more)
        if all(number(x, more) != at_limit for x in differing):
            return more
    return places


def _exponent(x: float) -> int:
    """Return the decimal exponent of ``x`` as it will be rounded: 0.0996 counts as 0.1."""
    return math.floor(math.log10(float(f"{abs(x):.1e}")))


def _three(x: float) -> str:
    """Format to three significant digits, with no exponent."""
    return f"{x:.{max(0, 2 - _exponent(x))}f}"


def distances(control: EngineControl) -> str:
    """What an engine's kernels and the weights that it runs differ by, each alone."""
    parts = [f"kernels {figures(control.kernels, 2)}"]
    if control.weights is not None:
        parts.insert(0, f"weights {figures(control.weights, 2)}")
    where = plural(control.windows, "window")
    return f"mean KL of each alone, nats/token on {where}: {', '.join(parts)}"
