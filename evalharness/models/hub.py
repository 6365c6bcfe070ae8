"""A hub id as a local directory: only the files that a load needs, at one commit."""

from __future__ import annotations

from pathlib import Path

from evalharness.errors import InputError, RunError
from evalharness.models.resolve import Resolved, is_offline
from evalharness.spec.model import ModelSource

_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


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
