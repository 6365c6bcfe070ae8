"""How much each module's damage matters to the output: a gradient score, then real swaps.

Score (all modules, one forward and one backward pass of the reference). With ΔY = g(x) − f(x) on
the clean input and g_t the gradient of log p(y) at position t, for tokens y drawn from the
reference's own prediction, E[(Σ g·ΔY)²]/2 is the module's KL to second order, since the Fisher
matrix is the Hessian of KL (Martens, arXiv 1412.1193). What is summed is ½ Σ_t (g_t·ΔY_t)²: cross
terms between positions are left out, which makes one draw enough to rank by.

Confirmation (the worst by score). Swap-one: the candidate's module in the clean reference.
Restore-one: the reference's module in the candidate. Both as mean logit KL from the reference, on
the same tokens. Only the blocks from the module's own on are run again, from the hidden states kept
at its boundary.

Controls: a module swapped for itself must give KL 0 exactly; the sum of single swaps over the KL of
all of them together (1: damages add up); noise of the same norm, token by token, instead of ΔY
(swap/noise above 1: the damage points where the model is sensitive).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evalharness.bisect.swap import outputs, replaced, restored, returning, swapped
from evalharness.data.windows import Window
from evalharness.pair.matching import PairedModule, decoder_blocks
from evalharness.pair.side import Side, chunks
from evalharness.pair.texts.statistics import token_statistics

CHUNK = 256  # scored positions whose logits exist at a time


@dataclass
class Scores:
    """Sums over the scored tokens of each document, by what was done to which module.

    ``kl[what, module][document]``: what is ``gradient``, ``swap``, ``noise`` or ``restore``; module
    ``""`` is nothing (the candidate itself), ``"*"`` all confirmed ones together.
    """

    tokens: dict[int, int] = field(default_factory=dict)
    kl: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    zero_swap: float | None = None  # must be 0 exactly
    suffix: bool = True  # whether blocks before the swapped one were left out

    def mean(self, what: str, module: str) -> float | None:
        """Nats a token over all documents; None where it was not measured."""
        found = self.kl.get((what, module))
        return None if found is None else sum(found.values()) / max(1, sum(self.tokens.values()))

    def ranked(self) -> list[str]:
        """Modules, the most sensitive first: confirmed ones by their swap, then by score."""
        names = [m for what, m in self.kl if what == "gradient"]
        swap = {m: self.mean("swap", m) for m in names}
        return sorted(names, key=lambda m: (swap[m] is None, -(swap[m] or 0.0), -self.score(m)))

    def by_cost(self, pairs: Sequence[PairedModule]) -> list[str]:
        """Modules, first those whose restoring saves the most KL for a weight that it keeps.

        What is kept costs bits for each of its weights, so that of two modules that do the same
        harm the smaller is the cheaper to restore.
        """
        size = {p.name: sum(t.numel() for m in p.references for t in m.parameters()) for p in pairs}

        def gain(module: str) -> float:
            swap = self.mean("swap", module)
            value = self.score(module) if swap is None or swap != swap else swap
            return value / max(1, size[module])

        return sorted((p.name for p in pairs), key=lambda m: -gain(m))

    def score(self, module: str) -> float:
        """The gradient score; an overflow counts as the largest."""
        value = self.mean("gradient", module) or 0.0
        return value if value == value else float("inf")


def gradient_scores(
    reference: Side, pairs: Sequence[PairedModule], windows: Sequence[Window], seed: int = 0
) -> Scores:
    """Score every linear of ``pairs`` on the clean reference."""
    scores = Scores()
    generator = torch.Generator(reference.device).manual_seed(seed)
    for window in windows:
        found = _window_scores(reference, pairs, window, generator)
        scores.tokens[window.document] = scores.tokens.get(window.document, 0) + window.scored
        for pair in pairs:
            by_doc = scores.kl.setdefault(("gradient", pair.name), {})
            value = float(found.get(pair.name, torch.zeros(())))
            by_doc[window.document] = by_doc.get(window.document, 0.0) + value
    return scores


def _window_scores(
    side: Side, pairs: Sequence[PairedModule], window: Window, generator: torch.Generator
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [side.model.get_input_embeddings().register_forward_hook(_needs_grad)]
    handles += [p.references[0].register_forward_hook(_collect(p, found)) for p in pairs]
    try:
        with torch.enable_grad():
            ids = side.ids([window])
            hidden = side.hidden(ids)[0, window.first : window.last]
            z_NV = side.logits(hidden).float()
            drawn = torch.multinomial(z_NV.detach().softmax(-1), 1, generator=generator)[:, 0]
            loss: Any = nn.functional.cross_entropy(z_NV, drawn, reduction="sum")
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _needs_grad(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    return out.detach().requires_grad_()


def _collect(pair: PairedModule, found: dict[str, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if not out.requires_grad:
            return
        with torch.no_grad():
            x = args[0]
            # Of a fused group on the reference's side the first member stands for its own columns.
            delta = outputs(pair.candidates, x)[..., : out.shape[-1]] - out

        def on_gradient(g: Tensor) -> None:
            score = (g.float() * delta.float()).sum(-1).square().sum() / 2
            found[pair.name] = found.get(pair.name, torch.zeros((), device=g.device)) + score

        out.register_hook(on_gradient)

    return hook


class Replay:
    """Runs one side from a block on, from hidden states kept at every block's boundary."""

    def __init__(self, side: Side, window: Window) -> None:
        self.side = side
        self.blocks = list(decoder_blocks(side.model).items())
        self.ids = side.ids([window])
        self.first, self.last = window.first, window.last
        self.head: Callable[..., Tensor] = side.head.forward  # as it is before any swap
        self._outs: list[Any] = []
        handles = [
            m.register_forward_hook(lambda m, a, out: self._outs.append(out))
            for _, m in self.blocks
        ]
        try:
            self.clean = self._scored()
        finally:
            for handle in handles:
                handle.remove()
        self.usable = len(self._outs) == len(self.blocks)

    def hidden(self, block: str | None, suffix: bool = True) -> Tensor:
        """Hidden states of the scored positions, with what lies before ``block`` left out."""
        if not (suffix and self.usable):
            return self._scored()
        names = [name for name, _ in self.blocks]
        at = len(names) if block is None else names.index(block)
        skipped = [(m, returning(self._outs[i])) for i, (_, m) in enumerate(self.blocks[:at])]
        with replaced(skipped):
            return self._scored()

    def _scored(self) -> Tensor:
        return self.side.hidden(self.ids)[0, self.first : self.last]


@torch.inference_mode()
def confirm(
    reference: Side,
    candidate: Side,
    pairs: Sequence[PairedModule],
    windows: Sequence[Window],
    scores: Scores,
    top: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda windows: None,
) -> None:
    """Add swap-one, restore-one and the controls of the ``top`` modules to ``scores``."""
    by_name = {p.name: p for p in pairs}
    chosen = [by_name[name] for name in scores.ranked()[:top]]
    if not chosen:
        return
    generator = torch.Generator(reference.device).manual_seed(seed)
    sums: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for window in windows:
        ref, cand = Replay(reference, window), Replay(candidate, window)
        target = torch.from_numpy(window.ids[window.first + 1 : window.last + 1]).to(
            candidate.device
        )

        def kl(side: Side, hidden: Tensor, ref: Replay = ref, target: Tensor = target) -> float:
            return _kl(ref, side, hidden, target)

        if scores.zero_swap is None:
            scores.zero_swap, scores.suffix = _zero_swap(ref, chosen, kl)
        sums["restore", ""][window.document] += kl(candidate, cand.clean)
        for pair in chosen:
            with swapped([pair]):
                value = kl(reference, ref.hidden(pair.block, scores.suffix))
            sums["swap", pair.name][window.document] += value
            with _noise(pair, generator):
                value = kl(reference, ref.hidden(pair.block, scores.suffix))
            sums["noise", pair.name][window.document] += value
            with restored([pair]):
                block = _on_candidate(pair, cand)
                value = kl(candidate, cand.hidden(block, scores.suffix))
            sums["restore", pair.name][window.document] += value
        with swapped(chosen):
            sums["swap", "*"][window.document] += kl(reference, ref.hidden(None, suffix=False))
        progress(1)
    scores.kl.update({key: dict(found) for key, found in sums.items()})


def _zero_swap(
    ref: Replay, chosen: Sequence[PairedModule], kl: Callable[[Side, Tensor], float]
) -> tuple[float, bool]:
    """KL of a module swapped for itself; where leaving blocks out breaks it, run them all."""
    value = 0.0
    for suffix in (True, False):
        itself = [(m, m.forward) for m in chosen[0].references]
        with replaced(itself):
            value = kl(ref.side, ref.hidden(chosen[0].block, suffix))
        if value == 0.0:
            return value, suffix
    return value, False


def _on_candidate(pair: PairedModule, cand: Replay) -> str | None:
    """The candidate's block that ``pair`` lies in."""
    names = (n for n, _ in cand.blocks)
    return next((n for n in names if pair.candidate_names[0].startswith(n + ".")), None)


@contextmanager
def _noise(pair: PairedModule, generator: torch.Generator) -> Iterator[None]:
    """Random directions instead of the candidate's error, of the same norm at each token."""
    module = pair.references[0]
    own = module.forward

    def forward(x: Tensor) -> Tensor:
        y: Tensor = own(x)
        delta = (outputs(pair.candidates, x)[..., : y.shape[-1]] - y).float()
        random = torch.randn(y.shape, generator=generator, device=y.device)
        scale = delta.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True)
        noisy: Tensor = y + (random * scale).to(y.dtype)
        return noisy

    with replaced([(module, forward)]):
        yield


def _kl(ref: Replay, side: Side, hidden: Tensor, target: Tensor) -> float:
    """Summed KL(reference ‖ side); the reference's head is as it was before any swap."""
    total = 0.0
    for piece in chunks(len(target), CHUNK):
        z = side.logits(hidden[piece])
        z_ref = ref.head(ref.clean[piece]) if ref.side.split else ref.clean[piece]
        z_ref = ref.side.finite_padding(z_ref).to(z.device)
        found = token_statistics(z_ref, z, target[piece])
        total += float(found["kl"].double().sum())
    return total
