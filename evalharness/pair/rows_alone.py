"""Whether a model gives a row of a batch what it gives it alone; where not, rows are fed alone.

Some models compute a row from more than its own tokens: rotary frequencies that follow the longest
position of a call (dynamic NTK, LongRoPE), and stay grown after it; scales or capacities that a
batch shares. It is tried rather than looked up. A short call that names a far position shows
what positions change in the model; a batch whose other rows and padding are exchanged shows what a
row takes from them. What calls leave behind is put back before each call from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from evalharness.compat.transformers import vocabulary_size
from evalharness.compat.transformers_kinds import is_own_architecture
from evalharness.engines.base import LoadedModel
from evalharness.engines.out_of_memory import is_out_of_memory

MOST_STATE = 1 << 20  # numbers: a rotary table
# Nats a token: what rounding does to a row when other rows change, in float32 and in 16 bits.
TOLERANCE, TOLERANCE_16 = 1e-3, 0.05


@dataclass
class _Known:
    """What has been tried on a model."""

    sharing: str | None  # why no two rows may be fed together, whatever their length
    steady: int = 0  # up to this length a call changes nothing in the model
    growing: int | None = None  # from this length on it does
    what: str = ""  # what it changes


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def alone_because(loaded: LoadedModel, longest: int) -> str | None:
    """Why rows of up to ``longest`` tokens must be fed alone and unpadded; None: they need not.

    The first call for a model costs a few dozen tokens, and a greater ``longest`` a few more.
    """
    model: Any = loaded.model
    if getattr(model, "streams", False):  # every row is a sequence of its own
        return None
    known = _KNOWN.get(model)
    if known is None:
        known = _KNOWN[model] = _Known(_sharing(loaded))
    if longest > known.steady and (known.growing is None or longest < known.growing):
        changed = _changed_by(loaded, longest)
        if changed:
            known.growing, known.what = longest, " and ".join(changed[:2])
        else:
            known.steady = longest
    if known.sharing is not None:
        return known.sharing
    if known.growing is None or longest < known.growing:
        return None
    return (
        f"{loaded.name} is changed by long calls ({known.what}), so that a row depends on its "
        "batch and on earlier calls"
    )


@dataclass
class Rest:
    """What calls have changed in a model, as it was when loaded; put back before each call.

    A bound method of it is the hook, so that a deep copy of the model restores the copy.
    """

    kept: list[tuple[nn.Module, str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any) -> Rest:
        """The one of ``model``, made and installed where there is none."""
        own = _backbone(model)
        for hook in own._forward_pre_hooks.values():
            rest = getattr(hook, "__self__", None)
            if isinstance(rest, cls):
                return rest
        rest = cls()
        own.register_forward_pre_hook(rest.before)
        return rest

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Put everything back: a hook before the backbone's forward."""
        for owner, name, value in self.kept:
            _put(owner, name, value)


def _backbone(model: Any) -> nn.Module:
    found: nn.Module = model.base_model
    return found


@torch.inference_mode()
def _changed_by(loaded: LoadedModel, longest: int) -> list[str]:
    """Names of what a call with a position ``longest - 1`` changes in the model; it is put back."""
    model: Any = loaded.model
    rest = Rest.of(model)
    rest.before(model, ())
    before = {(name, key): value for name, key, value in _state(model)}
    positions = torch.tensor([[0, longest - 1]], device=loaded.device)
    ids = torch.arange(2, device=loaded.device)[None] % vocabulary_size(model)
    if is_own_architecture(model):
        try:
            _backbone(model)(input_ids=ids, position_ids=positions, use_cache=False)
        except (AttributeError, TypeError, RuntimeError, ValueError, IndexError) as raised:
            if is_out_of_memory(raised):
                raise
    else:  # code that came with the files may go by the length of the call, not by its positions
        many = torch.arange(longest, device=loaded.device)[None] % vocabulary_size(model)
        _backbone(model)(input_ids=many, use_cache=False)
    owners = dict(model.named_modules())
    changed: list[tuple[nn.Module, str, Any]] = []
    names = []
    for name, key, value in _state(model):
        if (name, key) not in before:
            continue  # made on demand and kept: it changes nothing that was there
        old = before[name, key]
        if not _same(old, value):
            changed.append((owners[name], key, old))
            names.append(f"{name}.{key}")
    held = {(owner, key) for owner, key, _ in rest.kept}
    rest.kept += [c for c in changed if c[:2] not in held]
    rest.before(model, ())
    return names


@torch.inference_mode()
def _sharing(loaded: LoadedModel) -> str | None:
    """Why two rows may not be fed together, found by exchanging all that is not of a row."""
    model: Any = loaded.model
    vocabulary = vocabulary_size(model)
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> Tensor:
        return torch.randint(0, vocabulary, (count,), generator=draw)

    row = tokens(8)
    batches = []
    for padding in (torch.zeros(8, dtype=torch.long), tokens(8)):
        batches.append(torch.stack([torch.cat([row, padding]), tokens(16)]).to(loaded.device))
    try:
        one, other = (
            model(input_ids=ids, use_cache=False).logits[0, : len(row)].float() for ids in batches
        )
    except (AttributeError, TypeError, RuntimeError) as raised:
        if is_out_of_memory(raised):
            raise
        return f"{loaded.name} does not take two rows at once ({type(raised).__name__})"
    if not bool(one.isfinite().all() and other.isfinite().all()):
        return None  # found and named where it is measured
    full = model.dtype == torch.float32
    target = row[1:, None].to(one.device)
    by = one.log_softmax(-1) - other.log_softmax(-1)
    worst = float(by[:-1].gather(1, target).abs().max())
    if worst <= (TOLERANCE if full else TOLERANCE_16):
        return None
    return f"{loaded.name} computes a row from other rows or padding (by {worst:.2g} nats a token)"


def _state(model: Any) -> Iterator[tuple[str, str, Any]]:
    """(module, name, value) of all that is small, is no parameter and may differ after a call."""
    for name, module in model.named_modules():
        for key, value in (*module._buffers.items(), *vars(module).items()):
            if isinstance(value, Tensor):
                most = MOST_STATE if value.is_floating_point() else 1  # codes are many
                if value.numel() <= most and not value.is_meta:
                    yield name, key, value.clone()
            elif isinstance(value, int | float):
                yield name, key, value


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return old.shape == new.shape and bool((old == new.to(old.device)).all())
    return type(old) is type(new) and bool(old == new)


def _put(owner: nn.Module, name: str, value: Any) -> None:
    own = value.clone() if isinstance(value, Tensor) else value
    if name in owner._buffers:
        owner._buffers[name] = own
    else:
        setattr(owner, name, own)
