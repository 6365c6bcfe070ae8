"""Whether an adapter was trained on the model that it is to be added to.

Shapes alone do not tell: an adapter of one fine-tune fits every other. Its configuration names a
base, and that is held against ``model.path``: a directory by what it holds, a hub id by its name.
"""

from __future__ import annotations

from pathlib import Path

from evalharness.engines.file_headers import safetensors_header, weight_files
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import HUB_ID, read_json
from evalharness.errors import InputError, short
from evalharness.spec.model import ModelSpec

_SAMPLES, _SAMPLE = 64, 4096  # of each file: how many, and bytes


def check_base(adapter: Path, spec: ModelSpec, found: Resolved) -> str | None:
    """Raise `InputError` for an adapter of another base than ``found``.

    Returns
    -------
    str, or None
        What a reader must know where the names do not tell.

    """
    config = adapter / "adapter_config.json"
    base = read_json(config, "adapter").get("base_model_name_or_path")
    if not base or base == spec.adapter_base:
        return None
    if not isinstance(base, str):
        raise InputError(
            f"{config}: base_model_name_or_path must be text (got {short(base)})", key="adapter"
        )
    same = _is_same(base, found)
    if same is None:
        return (
            f"{spec.name}: the adapter was trained on {short(base)}; whether {found} is that model "
            "cannot be told"
        )
    if not same:
        raise InputError(
            f"{config} says that the adapter was trained on {short(base)}, and {found} is another "
            "model",
            key="adapter",
            remedy="Give that base as model.path; or, if this is a copy of it, its name as "
            f"adapter_base: {short(base)}.",
        )
    return None


def _is_same(base: str, found: Resolved) -> bool | None:
    """None: it cannot be told."""
    path = Path(base).expanduser()
    if path.is_dir() and weight_files(path):
        if found.path is None:
            return None
        return path.samefile(found.path) or _same_weights(path, found.path)
    if not HUB_ID.fullmatch(base):
        return None
    if found.hub_id is not None:
        return base.lower() == found.hub_id.lower()
    assert found.path is not None
    cached = f"models--{base.replace('/', '--')}".lower()
    if cached in (part.lower() for part in found.path.parts):
        return True
    return True if base.rpartition("/")[2].lower() == found.path.name.lower() else None


def _same_weights(one: Path, other: Path) -> bool | None:
    """Whether two directories hold the same tensors: headers, and samples of the bytes."""
    files = [weight_files(place) for place in (one, other)]
    if not files[1]:
        return None
    kept = [
        {
            (name, entry["dtype"], tuple(entry["shape"]))
            for path in paths
            for name, entry in safetensors_header(path, "adapter").items()
            if name != "__metadata__"
        }
        for paths in files
    ]
    if {dtype for _, dtype, _ in kept[0]} != {dtype for _, dtype, _ in kept[1]}:
        return None  # a copy in other numbers, perhaps
    if kept[0] != kept[1]:
        return False
    if [p.stat().st_size for p in files[0]] != [p.stat().st_size for p in files[1]]:
        return None  # cut into other files
    return all(_sampled(a) == _sampled(b) for a, b in zip(*files, strict=True))


def _sampled(path: Path) -> list[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        found = []
        for i in range(1, _SAMPLES + 1):
            file.seek(max(0, size * i // _SAMPLES - _SAMPLE))
            found.append(file.read(_SAMPLE))
    return found
