"""Artifacts on the Hugging Face hub: found there by name, and pushed there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.artifact import files
from pah_opt.errors import ArtifactError

if TYPE_CHECKING:
    from os import PathLike

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PATTERNS = [files.MANIFEST, *sorted(files.KNOWN)]
"""The only files that are ever downloaded."""


def is_hub_name(name: str) -> bool:
    """Tell whether ``name`` has the form ``user/model``."""
    return _HUB_NAME.fullmatch(name) is not None


def download(name: str, revision: str | None = None) -> Path:
    """Download an artifact into the hub's cache, or find it there.

    Args:
        name: such as ``user/model``.
        revision: branch, tag or commit; the main branch by default.

    Raises:
        ArtifactError: it cannot be had; names the reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(
            f"{name!r} is neither a folder here nor an artifact that can be downloaded from the hub: {error}"
        ) from error


def push_to_hub(
    folder: str | PathLike[str],
    name: str,
    *,
    private: bool = True,
    revision: str | None = None,
    message: str = "Upload an optimized Vision Transformer",
    license_id: str | None = None,
) -> str:
    """Upload a saved artifact to the hub; its checksums are verified first. Needs ``hf auth login``.

    Args:
        folder: of the artifact.
        name: such as ``user/model``; made if it is not there.
        private: whether a new repository is private.
        revision: branch to push to; the main branch by default.
        message: of the commit.
        license_id: the licence's name on the hub, for the model card; looked up at the base model by default.

    Returns:
        The address of the commit.

    Raises:
        ArtifactError: it is no whole artifact, or the hub refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from pah_opt.artifact.card import write_card
    from pah_opt.artifact.inspecting import inspect

    found = inspect(folder, verify=True)
    api = HfApi()
    write_card(found, license_id or _license_of(found.description.source))
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=found.folder, revision=revision, commit_message=message,
            allow_patterns=[*PATTERNS, files.CARD],
            # What an earlier version left, and this one does not have, would be a file too many.
            delete_patterns=sorted(files.KNOWN - set(found.manifest.files)),
        )  # fmt: skip
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ArtifactError(f"{found.folder} could not be pushed to {name!r}: {error}") from error
    return str(commit)


def _license_of(source: str | None) -> str | None:
    """Return the licence that the base model states on the hub; None when there is none to be had."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if source is None or not is_hub_name(source) or Path(source).exists():
        return None
    try:
        card = HfApi().model_info(source).card_data
    except (HfHubHTTPError, HFValidationError, OSError):
        return None
    found = card.get("license") if card is not None else None
    return found if isinstance(found, str) else None
