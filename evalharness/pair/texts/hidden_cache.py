"""The reference's final hidden states on disk: the next candidate does not pay for them again.

What is kept is the input of the head at scored positions, in compute dtype: 2 C bytes a token
instead of the 2 V of its logits. The head gives the logits back, in the chunks of the live pass, so
that on the same batches a run with the cache is the run without it, bit for bit.

    ROOT/MODEL/KEY.safetensors      one batch of windows: tensor ``hidden`` (N, C)

MODEL hashes all that decides the numbers: weights, configuration, dtype, head, device, kernels. KEY
hashes MODEL and the batch's token ids. An entry carries both and a SHA-256 over everything, is
written under a temporary name and renamed, and is used only if all of it agrees.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.compat.transformers import attention_of, settings_of
from evalharness.data.windows import Window
from evalharness.run.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from evalharness.pair.side import Side

FORMAT = "1"
SPARE = 1 << 30  # bytes of the disk that are left free: records come first


def default_root() -> Path:
    """``$EVALHARNESS_CACHE``, else ``evalharness`` in the user's cache directory."""
    named = os.environ.get("EVALHARNESS_CACHE")
    if named:
        return Path(os.path.expanduser(named))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "evalharness"


class DamagedError(Exception):
    """An entry that is not what its name says."""


class HiddenCache:
    """The hidden states of one reference. ``say`` is told what could not be used or kept."""

    def __init__(self, side: Side, root: Path, say: Callable[[str], None]) -> None:
        self.device, self.name, self.say = side.device, side.loaded.name, say
        self.head = head_fingerprint(side)
        self.model = _digest(_decisive(side) | {"head": self.head})
        self.folder = root / self.model[:32]
        self.hits = self.misses = 0
        self.full = False

    def key(self, batch: list[Window]) -> str:
        """The name of a batch's entry."""
        digest = hashlib.sha256(self.model.encode())
        for window in batch:
            digest.update(f"|{len(window.ids)} {window.first} {window.last}|".encode())
            digest.update(window.ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def has(self, batch: list[Window]) -> bool:
        """Whether `get` would find a batch's states."""
        try:
            return read(self._path(batch))[0].model == self.model
        except (DamagedError, OSError):
            return False

    def get(self, batch: list[Window]) -> Tensor | None:
        """Hidden states (N, C) of a batch's scored positions, or None."""
        path = self._path(batch)
        try:
            entry, hidden = read(path)
            if (entry.key, entry.model, entry.head) != (path.stem, self.model, self.head):
                raise DamagedError("it belongs to another model or batch")
        except FileNotFoundError:
            self.misses += 1
            return None
        except (DamagedError, OSError) as error:
            self.misses += 1
            self.say(f"cache entry {path} is not used and computed again: {error}")
            return None
        self.hits += 1
        return hidden.to(self.device)

    def put(self, batch: list[Window], hidden_NC: Tensor) -> None:
        """Keep a batch's hidden states; a failure to is said, once, and costs nothing else."""
        path = self._path(batch)
        tensor = hidden_NC.detach().cpu().contiguous()
        if self.full:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free - tensor.nbytes < SPARE:
                raise OSError(f"less than {SPARE >> 30} GiB would be left on the disk")
            entry = Entry(
                path,
                key=path.stem,
                model=self.model,
                head=self.head,
                name=self.name,
                dtype=str(tensor.dtype).removeprefix("torch."),
                tokens=len(tensor),
                bytes=tensor.nbytes,
            )
            with replacing(path, durable=False) as temporary:  # its digest tells
                write(temporary, entry, tensor)
        except OSError as error:
            self.full = True
            self.say(f"the cache in {path.parent} is no longer written: {error}")

    def _path(self, batch: list[Window]) -> Path:
        return self.folder / f"{self.key(batch)}.safetensors"


@dataclass(frozen=True)
class Entry:
    """What an entry says of itself; ``bytes`` are those of its tensor."""

    path: Path
    key: str
    model: str
    head: str
    name: str
    dtype: str
    tokens: int
    bytes: int

    def metadata(self) -> dict[str, str]:
        """As the file's header holds it."""
        kept = ("key", "model", "head", "name", "dtype", "tokens", "bytes")
        return {"format": FORMAT} | {k: str(getattr(self, k)) for k in kept}


def write(path: Path, entry: Entry, tensor: Tensor) -> None:
    """Write one entry."""
    from safetensors.torch import save

    metadata = entry.metadata()
    metadata["sha256"] = _checksum(metadata, tensor)
    path.write_bytes(save({"hidden": tensor}, metadata))


def read(path: Path) -> tuple[Entry, Tensor]:
    """Read one entry; raise `DamagedError` unless it is whole and what it says it is."""
    import safetensors

    entry, sha256 = _header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor("hidden")
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors raises its own, and RuntimeError
        raise DamagedError(f"it is cut short or damaged ({error})") from None
    if sha256 != _checksum(entry.metadata(), tensor):
        raise DamagedError("its SHA-256 differs")
    return entry, tensor


def entries(root: Path) -> Iterator[Path]:
    """The files of every entry under ``root``, in name order."""
    return iter(sorted(root.glob("*/*.safetensors")))


def describe(path: Path) -> Entry:
    """What an entry says of itself, its tensor unread."""
    return _header(path)[0]


def _header(path: Path) -> tuple[Entry, str]:
    from evalharness.engines.file_headers import safetensors_header
    from evalharness.errors import InputError

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        found = safetensors_header(path, "cache").get("__metadata__", {})
        if found["format"] != FORMAT:
            raise DamagedError(f"it has format {found['format']}, not {FORMAT}")
        entry = Entry(
            path,
            key=found["key"],
            model=found["model"],
            head=found["head"],
            name=found["name"],
            dtype=found["dtype"],
            tokens=int(found["tokens"]),
            bytes=int(found["bytes"]),
        )
        return entry, found["sha256"]
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"it is cut short or damaged ({error})") from None


def _checksum(metadata: dict[str, str], tensor: Tensor) -> str:
    import torch

    digest = hashlib.sha256(json.dumps([metadata, list(tensor.shape)], sort_keys=True).encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def head_fingerprint(side: Side) -> str:
    """SHA-256 of the head's weights."""
    from evalharness.engines.fingerprint import weights_fingerprint

    return weights_fingerprint(side.head)


def _decisive(side: Side) -> dict[str, Any]:
    """Everything but the tokens that decides the bits of the hidden states."""
    import torch

    cuda = side.device.type == "cuda"
    return {
        "format": FORMAT,
        "weights": side.loaded.manifest.fingerprint,
        "config": _digest(settings_of(side.model)),
        "dtype": str(side.model.dtype),
        "attention": attention_of(side.model),
        "device": torch.cuda.get_device_name(side.device) if cuda else platform.machine(),
        "kernels": torch.version.cuda if cuda else torch.backends.cpu.get_cpu_capability(),
        "threads": None if cuda else torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
