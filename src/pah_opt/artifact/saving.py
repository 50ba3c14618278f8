"""Write an artifact: everything into a new folder, which takes its place in one step."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.artifact import files
from pah_opt.artifact.card import model_card
from pah_opt.artifact.description import Description
from pah_opt.artifact.examples import current_examples
from pah_opt.artifact.folder import ArtifactFolder
from pah_opt.artifact.manifest import Manifest
from pah_opt.artifact.origin import environment_of_this_process
from pah_opt.artifact.structure import adapter_named, describe_structure, without_compilation
from pah_opt.errors import ArtifactError, ArtifactWriteError
from pah_opt.registry import default_registry
from pah_opt.storage.atomic import replace_folder
from pah_opt.storage.digest import Digest
from pah_opt.storage.weights import Weights
from pah_opt.storage.writer import write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from torch import Tensor

    from pah_opt.artifact.record import Artifact
    from pah_opt.registry import Registry


def save(
    artifact: Artifact,
    folder: str | PathLike[str],
    *,
    overwrite: bool = False,
    compress: bool = False,
    registry: Registry | None = None,
) -> Path:
    """Write ``artifact`` to ``folder``; see :meth:`pah_opt.artifact.Artifact.save`.

    Args:
        artifact: what to write.
        folder: where to.
        overwrite: replace an artifact that is there; a folder that is anything else, or a git repository, never is.
        compress: compress the weights losslessly with zstd.
        registry: where the artifact's ModelAdapter is found; everything installed by default.

    Raises:
        ArtifactWriteError: it could not be written; what was there before is untouched.
        MissingBackendError: ``compress`` without zstandard.
    """
    path = Path(folder)
    writer = _Writer(artifact, registry or default_registry(), compress=compress)
    try:
        with replace_folder(path, overwrite=overwrite, may_replace=_must_be_artifact) as new:
            writer.write(new)
            _keep_what_lies_beside(path, new)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():
            raise ArtifactWriteError(
                f"{path} exists already; pass overwrite=True to replace an artifact there"
            ) from error
        raise ArtifactWriteError(f"the artifact could not be written to {path}: {error.strerror or error}") from error
    return path


def _must_be_artifact(folder: Path) -> None:
    """Refuse to replace anything but an artifact: an undamaged manifest, and no files that it does not list."""
    try:
        ArtifactFolder(folder)
    except ArtifactError as error:
        raise ArtifactWriteError(f"{folder} is not replaced, because it is not a whole artifact ({error})") from error
    if (folder / ".git").exists():
        raise ArtifactWriteError(
            f"{folder} is not replaced, because it is a git repository, whose history would be lost; save to another "
            "folder and copy the files over"
        )


def _keep_what_lies_beside(old: Path, new: Path) -> None:
    """Copy licences and git's own settings, which are the user's; the card is written anew."""
    for path in old.iterdir() if old.is_dir() else ():
        if path.is_file() and files.may_lie_beside(path.name) and path.name not in (files.CARD, ".DS_Store"):
            shutil.copyfile(path, new / path.name)


class _Writer:
    """Writes the files of one artifact."""

    def __init__(self, artifact: Artifact, registry: Registry, *, compress: bool) -> None:
        self._artifact = artifact
        self._adapter = adapter_named(artifact.adapter, registry)
        self._compress = compress
        self._digests: dict[str, Digest] = {}

    def write(self, folder: Path) -> None:
        artifact, model = self._artifact, without_compilation(self._artifact.model)
        environment = artifact.environment or environment_of_this_process()
        with ThreadPoolExecutor(1) as beside:  # writing and hashing leave an interpreter free for it
            structure = beside.submit(describe_structure, model, self._adapter)
            self._write_tensors(folder / files.WEIGHTS, Weights.of(model), compress=self._compress)
        description = Description.of(artifact, structure.result(), environment)
        self._write(folder / files.DESCRIPTION, description.to_bytes())
        answering = artifact.model if artifact.examples is None else model  # compiling again would take minutes
        examples = current_examples(artifact.examples, answering, self._adapter)
        self._write_tensors(folder / files.EXAMPLES, Weights.of_tensors(_named(examples._asdict())))
        for name, data in ((files.PROCESSOR, artifact.processor), (files.REPORT, artifact.report)):
            if data is not None:
                self._write(folder / name, _json(name, data))
        manifest = Manifest.of(self._digests)
        (folder / files.CARD).write_text(model_card(description, manifest, artifact.report), encoding="utf-8")
        (folder / files.MANIFEST).write_bytes(manifest.to_bytes())

    def _write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self._digests[path.name] = Digest.of(data)

    def _write_tensors(self, path: Path, weights: Weights, *, compress: bool = False) -> None:
        if compress:
            from pah_opt.storage.compression import write_compressed

            path = path.with_name(files.COMPRESSED_WEIGHTS)
            with path.open("xb") as file:
                self._digests[path.name] = write_compressed(file, weights)
            return
        with path.open("xb") as file:
            self._digests[path.name] = write_weights(file, weights)


def _named(examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in bfloat16 where that loses nothing."""
    halved = {name: tensor.bfloat16() for name, tensor in examples.items()}
    return {name: half if half.float().equal(examples[name]) else examples[name] for name, half in halved.items()}


def _json(name: str, data: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(data, indent=1, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name} cannot be written, its content is not JSON data: {error}") from error
