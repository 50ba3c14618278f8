"""The manifest: size and checksums of every file of an artifact, and of the manifest itself."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pah_opt.artifact.files import DESCRIPTION, KNOWN, MANIFEST
from pah_opt.errors import ArtifactError
from pah_opt.storage.digest import Digest

SCHEMA = 1
"""Version of the format; a reader refuses a newer one."""

_BLANK = "0" * 64
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileRecord(BaseModel):
    """Size and checksums of one file.

    Args:
        bytes: its size.
        sha256: SHA-256 of each piece of 8 MiB; a smaller file has one, which is what ``sha256sum`` prints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(ge=0)
    sha256: tuple[Sha256, ...] = Field(min_length=1)

    @property
    def digest(self) -> Digest:
        """The same, to check a file with."""
        return Digest(self.bytes, self.sha256)


class _Version(BaseModel):
    format: Literal["pah_opt artifact"]
    schema_version: int


class Manifest(BaseModel):
    """What is in the folder of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["pah_opt artifact"] = "pah_opt artifact"
    schema_version: Literal[1] = 1
    files: dict[str, FileRecord]
    sha256: Sha256 = _BLANK
    """Of this file, with zeros in place of this value."""

    @classmethod
    def of(cls, digests: dict[str, Digest]) -> Manifest:
        """Make the manifest of files with these digests."""
        return cls(files={name: FileRecord(bytes=d.size, sha256=d.sha256) for name, d in sorted(digests.items())})

    def to_bytes(self) -> bytes:
        """Return the content of the file, its own checksum filled in."""
        blank = self.model_copy(update={"sha256": _BLANK}).model_dump_json(indent=1).encode() + b"\n"
        return blank.replace(_BLANK.encode(), hashlib.sha256(blank).hexdigest().encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest, and check its own checksum.

        Raises:
            ArtifactError: it is damaged, too new, or lists files that do not belong to an artifact.
        """
        _check_version(data)
        try:
            manifest = cls.model_validate_json(data)
        except ValidationError as error:
            raise ArtifactError(
                f"{MANIFEST} is damaged: {_first(error)}; copy or download the artifact again"
            ) from error
        _check_itself(manifest, data)
        strange = set(manifest.files) - KNOWN
        if strange or DESCRIPTION not in manifest.files:
            listed = ", ".join(repr(name) for name in sorted(strange)) or "no artifact.json"
            raise ArtifactError(f"{MANIFEST} lists {listed}; an artifact's files are {', '.join(sorted(KNOWN))}")
        return manifest


def _check_itself(manifest: Manifest, data: bytes) -> None:
    blank = data.replace(manifest.sha256.encode(), _BLANK.encode())
    if hashlib.sha256(blank).hexdigest() != manifest.sha256:
        raise ArtifactError(f"{MANIFEST} is damaged (wrong checksum): copy or download the artifact again")


def _check_version(data: bytes) -> None:
    try:
        version = _Version.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactError(f"{MANIFEST} is not the manifest of an artifact: {_first(error)}") from error
    if version.schema_version > SCHEMA:
        raise ArtifactError(
            f"the artifact has schema version {version.schema_version}, this pah_opt reads up to {SCHEMA}: "
            "upgrade with pip install -U pah-opt"
        )


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
