"""Artifacts on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from pah_opt.artifact import files
from pah_opt.errors import ArtifactError

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PATTERNS = [files.MANIFEST, *sorted(files.KNOWN)]
"""The only files that are ever downloaded."""


def is_hub_name(name: str) -> bool:
    """Tell whether ``name`` has the form ``user/model``."""
    return _HUB_NAME.fullmatch(name) is not None


def download(name: str, revision: str | None = None) -> Path:
    """Download an artifact into the hub's cache, or find it there.

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
