"""What each linear is given: ranges, outlier channels, and whether the calibration text saw them.

One pass of each side over sampled windows, one window at a time; of every linear's input x only
sums stay, on the device: Σx … Σx⁴ and the largest |x| per document, Σx² and the largest |x| per
channel. Position 0, whose massive activations (arXiv 2402.17762) would drown the rest, is left out.

The calibration text, where the candidate names one, goes through the reference first, since that is
the model that was calibrated. Then, of the suite's values on the reference: how many lie beyond the
largest |x| that calibration saw, of the whole input and of their own channel. A static range
would clip them. From n tokens on both sides and one distribution, 1 / (n + 1) of the values lie
beyond their channel's range by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from evalharness.data.windows import Window, spread
from evalharness.pair.matching import PairedModule
from evalharness.pair.side import Side
from evalharness.probes.weights import Columns
from evalharness.run.records import ACTIVATIONS, OUTLIERS

TOP = 8  # outlier channels of a module kept in the records
SHARE = 0.01  # of the channels: those whose share of the energy is told
_SUMS = (
    "sum",
    "sum_sq",
    "sum_cube",
    "sum_quad",
    "max_abs",
    "pos0_max_abs",
    "weighted_err_sq",
    "weighted_ref_sq",
    "beyond_range",
    "beyond_channel",
)


def sample(windows: Sequence[Window], count: int) -> list[Window]:
    """At most ``count`` windows of two tokens and more, spread evenly."""
    usable = [s for s in windows if len(s.ids) > 1]
    count = min(count, len(usable))
    return [usable[at] for at in spread(len(usable), count)]


class _Channels:
    """One module's channels on one side, over all windows."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.largest = torch.zeros(width, device=device)
        self.energy = torch.zeros(width, dtype=torch.float64, device=device)


class ActivationSums:
    """One side's sums over the windows it is given."""

    def __init__(
        self,
        label: str,
        side: Side,
        modules: Sequence[tuple[str, nn.Module]],
        columns: dict[str, Columns] | None = None,
        seen: ActivationSums | None = None,
    ) -> None:
        """``columns``: weight errors to weight; ``seen``: the calibration text's sums."""
        self.label, self.side, self.modules = label, side, modules
        self.columns, self.seen = columns or {}, seen
        self.device = torch.device("cpu") if side.device.type == "mps" else side.device
        self.channels: dict[str, _Channels] = {}
        self._kept: list[tuple[str, int, int, int, Tensor]] = []
        # Two modules may be given the very same tensor (q, k and v): it is read once.
        self._last: tuple[Tensor, tuple[Tensor, ...]] | None = None

    @torch.inference_mode()
    def run(
        self, windows: Sequence[Window], progress: Callable[[int], None] = lambda n: None
    ) -> None:
        """Send the windows through the side's own forward."""
        for window in windows:
            with self._watching(window):
                ids = self.side.ids([window])
                hidden = self.side.hidden(ids)
                if self.side.split:
                    for name, module in self.modules:
                        if module is self.side.head:
                            self._take(name, hidden, window)
            self._last = None
            progress(len(window.ids))

    @contextmanager
    def _watching(self, window: Window) -> Iterator[None]:
        handles = [
            module.register_forward_pre_hook(self._hook(name, window), with_kwargs=True)
            for name, module in self.modules
            if not (module is self.side.head and self.side.split)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, window: Window) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = args[0] if args else next((v for v in kwargs.values() if _floating(v)), None)
            if _floating(x):
                self._take(name, x, window)

        return hook

    def _take(self, name: str, x: Tensor, window: Window) -> None:
        # One row a token; the rows that a routed expert gets are others.
        if x.shape[:-1].numel() != len(window.ids):
            return
        found = self._reduced(x)
        first, largest_C, energy_C, powers = found
        channels = self.channels.get(name)
        if channels is None:
            channels = self.channels[name] = _Channels(len(largest_C), self.device)
        torch.maximum(channels.largest, largest_C, out=channels.largest)
        channels.energy += energy_C
        nothing = powers.new_full((), torch.nan)
        weighted = beyond = (nothing, nothing)
        if name in self.columns:
            norms = self.columns[name]
            weighted = (
                energy_C @ norms.error.to(self.device),
                energy_C @ norms.reference.to(self.device),
            )
        if self.seen is not None and name in self.seen.channels:
            size = self.seen.channels[name].largest
            rows_NC = x.reshape(-1, x.shape[-1])[1:].to(self.device).abs()
            beyond = ((rows_NC > size.max()).sum().double(), (rows_NC > size).sum().double())
        numbers = torch.stack(
            [*powers, largest_C.max().double(), first.double(), *weighted, *beyond]
        )
        tokens = x.shape[:-1].numel() - 1
        self._kept.append((name, window.document, tokens * x.shape[-1], x.shape[-1], numbers))

    def _reduced(self, x: Tensor) -> tuple[Tensor, ...]:
        """Largest |x| of position 0; of the others, by channel, largest |x| and Σx²; Σx … Σx⁴."""
        if self._last is not None and self._last[0] is x:
            return self._last[1]
        rows_NC = x.reshape(-1, x.shape[-1]).to(self.device).float()
        first, rows_NC = rows_NC[0].abs().max(), rows_NC[1:]
        square_NC = rows_NC.square()
        energy_C = square_NC.sum(0, dtype=torch.float64)
        powers = torch.stack(
            [
                rows_NC.sum(dtype=torch.float64),
                energy_C.sum(),
                (square_NC * rows_NC).sum(dtype=torch.float64),
                square_NC.square_().sum(dtype=torch.float64),
            ]
        )
        found = (first, rows_NC.abs().amax(0), energy_C, powers)
        self._last = (x, found)
        return found

    def tables(self) -> dict[str, pa.Table]:
        """Rows of `records.ACTIVATIONS` and `records.OUTLIERS`."""
        return {"activations": self._activations(), "outliers": self._outliers()}

    def _activations(self) -> pa.Table:
        numbers: Any = torch.stack([k[-1] for k in self._kept]).cpu().numpy() if self._kept else []
        merged: dict[tuple[str, int], dict[str, Any]] = {}
        for (name, doc, values, width, _), row in zip(self._kept, numbers, strict=True):
            found = dict(zip(_SUMS, (float(v) for v in row), strict=True))
            key = (name, doc)
            if key not in merged:
                merged[key] = {
                    "layer": name,
                    "side": self.label,
                    "doc": doc,
                    "channels": width,
                    "values": values,
                    **found,
                }
                continue
            old = merged[key]
            old["values"] += values
            for column, value in found.items():
                old[column] = (
                    float(np.fmax(old[column], value))
                    if column.endswith("max_abs")
                    else old[column] + value
                )
        for row in merged.values():
            if (
                row["weighted_ref_sq"] != row["weighted_ref_sq"]
                and row["layer"] not in self.columns
            ):
                row["weighted_err_sq"] = row["weighted_ref_sq"] = None
            for column in ("beyond_range", "beyond_channel"):
                row[column] = None if row[column] != row[column] else int(row[column])
        return pa.Table.from_pylist(list(merged.values()), schema=ACTIVATIONS)

    def _outliers(self) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for name, channels in self.channels.items():
            largest, energy = channels.largest.cpu().numpy(), channels.energy.cpu().numpy()
            whole = float(energy.sum())
            share = energy / whole if whole else np.zeros_like(energy)
            count = max(1, int(SHARE * len(share)))
            common = {
                "layer": name,
                "side": self.label,
                "top_energy": float(np.sort(share)[-count:].sum()),
                "range_shift": self._range_shift(name, largest),
            }
            for by, values in (("max", largest), ("energy", share)):
                order = np.argsort(-values, kind="stable")[:TOP]
                rows += [
                    {
                        "by": by,
                        "rank": rank,
                        "channel": int(c),
                        "max_abs": float(largest[c]),
                        "energy": float(share[c]),
                        **common,
                    }
                    for rank, c in enumerate(order)
                ]
        return pa.Table.from_pylist(rows, schema=OUTLIERS)

    def _range_shift(self, name: str, largest: Any) -> float | None:
        if self.seen is None or name not in self.seen.channels:
            return None
        theirs = self.seen.channels[name].largest.cpu().numpy()
        both = (largest > 0) & (theirs > 0)
        if not both.any():
            return None
        return float(np.median(np.abs(np.log2(largest[both] / theirs[both]))))


def inputs_of(pairs: Sequence[PairedModule], side: str) -> list[tuple[str, nn.Module]]:
    """The modules whose inputs are watched on one side; of a fused group the first stands for all.

    Linears and fused experts: every member of a group is given one input.
    """
    return [
        (p.name, p.reference if side == "reference" else p.candidate)
        for p in pairs
        if p.kind in ("linear", "experts")
    ]


def activations(
    reference: Side,
    candidate: Side,
    pairs: Sequence[PairedModule],
    windows: Sequence[Window],
    columns: dict[str, Columns],
    calibration: Sequence[Window] = (),
    progress: Callable[[int], None] = lambda tokens: None,
) -> dict[str, pa.Table]:
    """Both sides' inputs over ``windows``, and the reference's over ``calibration``."""
    seen: ActivationSums | None = None
    if calibration:
        seen = ActivationSums("calibration", reference, inputs_of(pairs, "reference"))
        seen.run(calibration, progress)
    ref = ActivationSums("reference", reference, inputs_of(pairs, "reference"), columns, seen)
    ref.run(windows, progress)
    cand = ActivationSums("candidate", candidate, inputs_of(pairs, "candidate"))
    cand.run(windows, progress)
    made = [s.tables() for s in (seen, ref, cand) if s is not None]
    return {name: pa.concat_tables([t[name] for t in made]) for name in made[0]}


def _floating(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()
