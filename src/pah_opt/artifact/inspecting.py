"""What is in a saved artifact, without loading it: no torch, no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.artifact import files
from pah_opt.artifact.description import Description
from pah_opt.artifact.folder import ArtifactFolder
from pah_opt.storage.atomic import whole_folder

if TYPE_CHECKING:
    from os import PathLike

    from pah_opt.artifact.manifest import Manifest


@dataclass(frozen=True)
class Inspection:
    """What a saved artifact says about itself.

    Args:
        folder: where it is.
        description: how it was made.
        manifest: its files, their sizes and checksums.
        verified: whether the checksums of all files were compared with their content.
    """

    folder: Path
    description: Description
    manifest: Manifest
    verified: bool

    @property
    def total_bytes(self) -> int:
        """Bytes of all files that the manifest lists."""
        return sum(record.bytes for record in self.manifest.files.values())

    def to_data(self) -> dict[str, Any]:
        """Return everything but the structure as JSON data."""
        return {
            "folder": str(self.folder),
            "verified": self.verified,
            "total_bytes": self.total_bytes,
            "files": {name: record.bytes for name, record in self.manifest.files.items()},
            **self.description.model_dump(mode="json", exclude={"structure", "recipe"}),
            "recipe": self.description.recipe.to_data(),
        }


def inspect(folder: str | PathLike[str], *, verify: bool = False) -> Inspection:
    """Read what a saved artifact says about itself.

    Args:
        folder: of the artifact.
        verify: also read every file whole and compare its checksum.

    Raises:
        ArtifactError: it is no artifact, is incomplete, too new, or (``verify``) damaged.
    """
    found = ArtifactFolder(whole_folder(Path(folder)))
    description = Description.from_bytes(found.read(files.DESCRIPTION))
    if verify:
        for name in found.manifest.files:
            found.map(name)
    return Inspection(found.path, description, found.manifest, verify)
