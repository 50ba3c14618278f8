"""``export.json``: what an exported model is, what it was made from, how well it agrees; its files' checksums."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pah_opt.artifact.manifest import FileRecord
from pah_opt.errors import ArtifactError
from pah_opt.storage.digest import Digest

if TYPE_CHECKING:
    from os import PathLike

MANIFEST = "export.json"
MAX_BYTES = 8 * 2**20


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Data):
    """What the model takes.

    Args:
        name: of the input.
        shape: channels, height and width in pixels; the number of images before them is free.
        dtype: of the pixels.
        mean, std: what the model's own processor subtracts from and divides pixels between 0 and 1 by, one for each
            channel; None when there is no processor that says so. ``preprocessor_config.json`` says all of it.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: Literal["float32"] = "float32"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class ExportManifest(_Data):
    """What an exported model is.

    Args:
        target: its form.
        file: what to load, relative to the folder; empty for the folder itself.
        input: what it takes.
        output: name of the output: float32 logits, ``(batch, classes)``.
        labels: names of the classes.
        computes: floating-point type that it computes in, such as ``fp32``.
        opset: of ONNX, where there is one.
        operators: integer operators and tensors, counted.
        notes: what a user must know of the form.
        settings: of the runtime it was checked with, where they are not its own.
        tensorrt: what TensorRT would object to; None for forms that it does not read.
        tolerance, difference, top1_agreement: see :class:`pah_opt.export.agreement.Agreement`.
        batch_sizes: that were run.
        images: that were compared.
        versions: of the libraries that made and checked it.
        source: SHA-256 of the artifact's files, by name; empty for one that was never saved.
        recipe: name of the artifact's recipe.
        files: size and SHA-256 of each other file, by path.
    """

    format: Literal["pah_opt export"] = "pah_opt export"
    schema_version: Literal[1] = 1
    target: str
    file: str
    input: Input
    output: str
    labels: tuple[str, ...]
    computes: str
    opset: int | None = None
    operators: dict[str, int]
    notes: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    tensorrt: tuple[str, ...] | None = None
    tolerance: float
    difference: float
    top1_agreement: float
    batch_sizes: tuple[int, ...]
    images: int
    versions: dict[str, str]
    source: dict[str, tuple[str, ...]]
    recipe: str
    files: dict[str, FileRecord]

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Return size and checksums of every file under a folder, by path with forward slashes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = Digest.of(path.read_bytes())
            found[path.relative_to(folder).as_posix()] = FileRecord(bytes=digest.size, sha256=digest.sha256)
    return found


def read_export(folder: str | PathLike[str]) -> ExportManifest:
    """Read what an exported model says of itself, and compare the checksum of every file.

    Raises:
        ArtifactError: it is no exported model, a file is missing or damaged, or lies outside the folder.
    """
    home = Path(folder)
    manifest = _manifest(home)
    for name, record in manifest.files.items():
        path = home / name
        if not path.resolve().is_relative_to(home.resolve()) or not path.is_file():
            raise ArtifactError(f"{home} lacks {name}: export the artifact again")
        record.digest.check(path.read_bytes(), str(path))
    if manifest.file and not any(name == manifest.file for name in manifest.files):
        raise ArtifactError(f"{home / MANIFEST} names {manifest.file!r}, which is none of its files")
    return manifest


def _manifest(home: Path) -> ExportManifest:
    path = home / MANIFEST
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{path} is larger than any manifest")
        return ExportManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{home} is no exported model: {path.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise ArtifactError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
