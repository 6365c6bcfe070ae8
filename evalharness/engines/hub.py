"""A hub id as a local directory: only the files that a load needs, at one commit.

Offline nothing is asked of the hub: what is not in the local cache is refused at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalharness.errors import InputError, RunError
from evalharness.spec.model import ModelSource

Kind = Literal["hub", "directory", "gguf", "engine"]

_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


@dataclass(frozen=True)
class Resolved:
    """A model that is there: ``path`` on this machine, or ``hub_id`` at ``revision``.

    Of the kind ``engine`` it is what the engine calls ``name``, and nobody else looks into it.
    """

    kind: Kind
    path: Path | None = None
    hub_id: str | None = None
    revision: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        if self.name is not None:
            return self.name
        return f"{self.hub_id}@{self.revision}" if self.revision else str(self.hub_id)


def snapshot(found: Resolved, source: ModelSource, *, weights: bool = True) -> Path:
    """Return the local path of ``found``, fetching it from the hub where it is not there.

    Raises
    ------
    InputError : no such model or revision, or it needs a login.
    RunError : the hub cannot be reached.

    """
    if found.path is not None:
        return found.path
    from huggingface_hub import errors, snapshot_download

    patterns = list(_FILES)
    if weights:
        patterns += ["*.safetensors"] + (["pytorch_model*.bin"] if source.allow_pickle else [])
    if source.trust_remote_code:
        patterns.append("*.py")
    name = str(found)
    try:
        return Path(
            snapshot_download(
                str(found.hub_id),
                revision=found.revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*", "consolidated*"],
                local_files_only=is_offline(),
            )
        )
    except errors.GatedRepoError:
        remedy = "Accept its terms on the hub, then run: hf auth login"
        raise InputError(f"{name} is gated", key="model.path", remedy=remedy) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise InputError(
            f"no such model on the hub: {name}",
            key="model.path",
            remedy="Check the spelling and the revision; a private model needs: hf auth login",
        ) from None
    except errors.LocalEntryNotFoundError:
        raise RunError(
            f"{name} is not in the local cache and the hub cannot be reached. "
            "Check the network, or give a local path"
        ) from None


def is_offline() -> bool:
    """Return whether the environment forbids the hub, as huggingface_hub reads it."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(n, "").upper() in {"1", "ON", "YES", "TRUE"} for n in names)


def require_cached(found: Resolved, filename: str, key: str) -> Path | None:
    """Offline, the cached snapshot of a hub id; refuse one that is not there. Online, None."""
    if not is_offline():
        return None
    from huggingface_hub import try_to_load_from_cache

    hub_id = str(found.hub_id)
    cached = try_to_load_from_cache(hub_id, filename, revision=found.revision)
    if isinstance(cached, str):
        return Path(cached).parent
    if Path(hub_id).is_dir():
        remedy = f"Write ./{hub_id} for the folder of that name in the working directory."
    else:
        at = f" --revision {found.revision}" if found.revision else ""
        remedy = f"Run once with the network: hf download {hub_id}{at}, or give a local path."
    raise InputError(
        f"offline, and {found} is not in the local cache ({filename} is missing)",
        key=key,
        remedy=remedy,
    )
