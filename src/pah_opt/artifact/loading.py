"""Read an artifact: checksums first, then an empty model, then its tensors, then the steps' last touches."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.artifact import files
from pah_opt.artifact.description import Description
from pah_opt.artifact.examples import check_examples
from pah_opt.artifact.folder import ArtifactFolder
from pah_opt.artifact.record import Artifact, Examples
from pah_opt.artifact.structure import adapter_named, finish, rebuild
from pah_opt.errors import ArtifactError
from pah_opt.registry import default_registry
from pah_opt.storage.atomic import whole_folder
from pah_opt.storage.fill import fill_model
from pah_opt.storage.reader import WeightsReader

if TYPE_CHECKING:
    from os import PathLike

    from pah_opt.registry import Registry

MOST_EXAMPLE_BYTES = 2**28
"""Two images and their logits take far less; a file of zeros could decode to a thousand times its size."""
ATTEMPTS = 3
"""A reader whose folder is replaced while it reads begins again."""


def load(
    source: str | PathLike[str],
    *,
    device: str | torch.device | None = None,
    verify: bool = False,
    revision: str | None = None,
    registry: Registry | None = None,
) -> Artifact:
    """Read a saved artifact from a folder or from the Hugging Face hub. It holds no code.

    Every file's checksum is verified before anything in it is used. What steps left to be done is done by the installed
    strategies that its recipe names: compiling, exporting again, or handing a graph that was kept with the weights to
    the native parser of an engine; see SECURITY.md for artifacts of unknown origin. Neither training data nor the
    libraries that only made the model (torch-pruning) are needed.

    Args:
        source: a folder, or a hub name such as ``user/model``.
        device: where the tensors go; the CPU by default.
        verify: compute the logits of the stored inputs again and compare.
        revision: branch, tag or commit on the hub.
        registry: where strategies and ModelAdapters are found; everything installed by default.

    Returns:
        The Artifact as it was saved, its model in ``eval`` mode.

    Raises:
        ArtifactError: it is corrupt, incomplete, unsafe, too new, or (``verify``) gives other logits.
        MissingBackendError: a library that the model needs is not installed.
    """
    folder = whole_folder(_local(source, revision))
    attempts = ATTEMPTS
    while True:
        identity = _identity(folder)
        try:
            return _Loader(folder, torch.device(device or "cpu"), registry or default_registry()).load(verify=verify)
        except ArtifactError:
            attempts -= 1
            if not attempts or _identity(folder) == identity:
                raise


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from the one that replaces it."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _local(source: str | PathLike[str], revision: str | None) -> Path:
    from pah_opt.artifact.hub import download, is_hub_name

    if "\0" in str(source):
        raise ArtifactError(f"{source!r} is not a path")
    if revision is None and (not isinstance(source, str) or Path(source).exists() or not is_hub_name(source)):
        return Path(source)
    return download(str(source), revision)


class _Loader:
    """Reads the files of one folder."""

    def __init__(self, folder: Path, device: torch.device, registry: Registry) -> None:
        self._folder = ArtifactFolder(folder)
        self._device = device
        self._registry = registry

    def load(self, *, verify: bool) -> Artifact:
        # The checksum of every file is compared before anything in that file is used.
        described = Description.from_bytes(self._folder.read(files.DESCRIPTION))
        processor, report = self._json(files.PROCESSOR), self._json(files.REPORT)
        examples = self._examples()
        adapter = adapter_named(described.adapter, self._registry)
        steps = described.step_records
        with ThreadPoolExecutor(1) as beside:  # hashing leaves this thread free to build the empty model meanwhile
            weights = beside.submit(self._weights)
            model = rebuild(dict(described.structure), adapter, steps, self._registry)
            fill_model(model, weights.result(), self._device)
        model = finish(model, steps, self._registry).eval()
        if verify:
            check_examples(model, adapter, examples)
        return Artifact(
            model=model, recipe=described.recipe, steps=steps, adapter=described.adapter,
            weights_origin=described.weights_origin, source=described.source, processor=processor,
            class_names=described.class_names, tags=frozenset(described.tags), environment=described.environment,
            report=report, examples=examples,
        )  # fmt: skip

    def _weights(self) -> WeightsReader:
        if files.COMPRESSED_WEIGHTS in self._folder:
            from pah_opt.storage.compression import decompressed

            packed = self._folder.map(files.COMPRESSED_WEIGHTS)
            return WeightsReader(decompressed(packed, files.COMPRESSED_WEIGHTS), files.COMPRESSED_WEIGHTS)
        return WeightsReader(self._folder.map(files.WEIGHTS), files.WEIGHTS)

    def _examples(self) -> Examples:
        reader = WeightsReader(self._folder.map(files.EXAMPLES), files.EXAMPLES)
        size = reader.decoded_bytes()
        if size > MOST_EXAMPLE_BYTES:
            raise ArtifactError(
                f"{files.EXAMPLES} would take {size:,} bytes in memory, which two images and their logits never do; at "
                f"most {MOST_EXAMPLE_BYTES:,} are read"
            )
        return Examples(*(reader.leaf(name).float() for name in Examples._fields))

    def _json(self, name: str) -> Any:
        if name not in self._folder:
            return None
        try:
            data = json.loads(self._folder.read(name))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{name} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ArtifactError(f"{name} is not a JSON object")
        return data
