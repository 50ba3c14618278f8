"""Export: refuse or write, run what was written in its own runtime, compare, and only then let it take its place."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.artifact.files import PROCESSOR
from pah_opt.artifact.origin import LIBRARIES
from pah_opt.environment import installed_version
from pah_opt.errors import ArtifactError, ExportError, ExportRefusedError, MissingBackendError
from pah_opt.export.agreement import compare
from pah_opt.export.manifest import MANIFEST, ExportManifest, Input, file_records, read_export
from pah_opt.export.problems import problems
from pah_opt.export.subject import Subject
from pah_opt.export.targets import target_named
from pah_opt.export.tracing import INPUT, OUTPUT
from pah_opt.export.triton import LayoutName, Repository, require_layout, write_repository
from pah_opt.storage.atomic import replace_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.artifact import Artifact
    from pah_opt.export.targets import Target
    from pah_opt.registry import Registry


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: where it is.
        manifest: what it is, and how well it agrees with the artifact.
    """

    folder: Path
    manifest: ExportManifest

    @property
    def total_bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(record.bytes for record in self.manifest.files.values())

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"folder": str(self.folder), "total_bytes": self.total_bytes, **self.manifest.model_dump(mode="json")}


def export(
    artifact: Artifact | str | PathLike[str],
    to: str,
    out: str | PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    layout: LayoutName = "plain",
    name: str | None = None,
    max_batch: int = 64,
    registry: Registry | None = None,
) -> Exported:
    """Write an artifact in the form of another runtime, and prove there that it answers as before.

    The batch size stays free. Quantized layers keep their integers, or the target refuses them. Nothing is written
    when the target refuses, and nothing stays when what was made does not run or answers differently.

    Args:
        artifact: it, its folder, or its name on the hub.
        to: a target, one of :data:`pah_opt.export.TARGETS`: ``onnx``, ``openvino``, ``torch-export``, ``aoti``,
            ``transformers``.
        out: the folder to write; beside the artifact's folder, with the target's name, by default.
        overwrite: replace an exported model that is there; anything else is never replaced.
        layout: ``triton`` for a model repository of Triton Inference Server (onnx and openvino).
        name: of the model in that repository.
        max_batch: the most images that Triton puts together.
        registry: where strategies and ModelAdapters are found; everything installed by default.

    Raises:
        ExportRefusedError: artifact and target do not go together; names every reason, with a remedy.
        MissingBackendError: nothing but libraries stand in the way.
        ExportError: it could not be traced, compiled or run, or answers differently.
        ArtifactError: the artifact cannot be loaded, or the folder cannot be written.
    """
    repository = Repository(layout, name, max_batch)
    return export_all(
        artifact, (to,), {to: _out(artifact, to, out)}, repository, overwrite=overwrite, registry=registry
    )[0]


def export_all(
    artifact: Artifact | str | PathLike[str],
    targets: Sequence[str],
    folders: dict[str, Path],
    repository: Repository = Repository(),  # noqa: B008  # frozen
    *,
    overwrite: bool = False,
    registry: Registry | None = None,
) -> list[Exported]:
    """Export to several targets; all are checked before the first one is written. See :func:`export`."""
    known = [target_named(name) for name in dict.fromkeys(targets)]
    for target in known:
        require_layout(repository, target)
        _require_outside(artifact, folders[target.name])
        _require_vacant(folders[target.name], overwrite=overwrite)
    subject = Subject.of(artifact, registry)
    for target in known:
        _require(subject, target)
    return [_exported(subject, target, folders[target.name], repository, overwrite=overwrite) for target in known]


def _out(artifact: Artifact | str | PathLike[str], to: str, out: str | PathLike[str] | None) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(artifact, (str, Path)) and Path(artifact).is_dir():
        return folder_beside(Path(artifact), to)
    raise ArtifactError("there is no folder to put the exported model beside; say where to write it: out=FOLDER")


def folder_beside(artifact: Path, target: str) -> Path:
    """Return where an artifact's folder is exported to by default: beside it, with the target's name.

    Raises:
        ArtifactError: the folder is the root of a file system.
    """
    # "." has no name of its own.
    named = artifact if artifact.name else artifact.resolve()
    if not named.name:
        raise ArtifactError(f"nothing can lie beside {artifact}; say where to write: out=FOLDER (--out)")
    return named.with_name(f"{named.name}-{target}")


def _require_outside(artifact: Artifact | str | PathLike[str], folder: Path) -> None:
    if not isinstance(artifact, (str, PathLike)) or not Path(artifact).is_dir():
        return
    home, out = Path(artifact).resolve(), folder.resolve()
    if home == out or home in out.parents:
        raise ArtifactError(
            f"{folder} lies in the artifact's own folder, which holds nothing but its own files; write beside it"
        )


def _require_vacant(folder: Path, *, overwrite: bool) -> None:
    if not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder} exists already; pass overwrite=True (--overwrite) to replace an export there")


def _require(subject: Subject, target: Target) -> None:
    found = problems(subject, target)
    if not found:
        return
    absent = [problem for problem in found if "pip install" in (problem.remedy or "")]
    if len(absent) == len(found):
        raise MissingBackendError(f"export to {target.name}: " + "; ".join(map(str, absent)))
    raise ExportRefusedError(found, f"{target.name} was not exported")


def _exported(subject: Subject, target: Target, folder: Path, repository: Repository, *, overwrite: bool) -> Exported:
    try:
        with replace_folder(folder, overwrite=overwrite, may_replace=_must_be_export) as new:
            manifest = _written(subject, target, new, repository)
            (new / MANIFEST).write_bytes(manifest.to_bytes())
    except FileExistsError as error:
        raise ArtifactError(
            f"{folder} exists already; pass overwrite=True (--overwrite) to replace an export"
        ) from error
    except OSError as error:
        raise ExportError(f"{target.name} could not be written to {folder}: {error.strerror or error}") from error
    return Exported(folder, manifest)


def _must_be_export(folder: Path) -> None:
    try:
        known = {MANIFEST, *read_export(folder).files}
    except ArtifactError as error:
        raise ArtifactError(f"{folder} is not replaced, because it is not a whole exported model ({error})") from error
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    extra = sorted(name for name in found - known if not name.endswith(".DS_Store"))
    if extra:
        raise ArtifactError(f"{folder} is not replaced, because it also holds {', '.join(extra[:3])}; move that away")


def _written(subject: Subject, target: Target, folder: Path, repository: Repository) -> ExportManifest:
    runtime = importlib.import_module(f"pah_opt.export.{target.module}")
    home = repository.model_folder(folder)
    home.mkdir(parents=True, exist_ok=True)
    facts = runtime.write(subject, home)
    found = compare(subject, runtime.runner(home))
    if subject.artifact.processor is not None:
        (folder / PROCESSOR).write_text(json.dumps(subject.artifact.processor, indent=1) + "\n", encoding="utf-8")
    if repository.layout == "triton":
        write_repository(
            repository, folder, target, inputs=(INPUT, subject.image_shape), output=OUTPUT, labels=subject.labels
        )
    return ExportManifest(
        target=target.name, file=(home / target.file).relative_to(folder).as_posix() if target.file else "",
        input=_input(subject), output=OUTPUT, labels=subject.labels,
        computes=subject.dtype if subject.dtype in target.dtypes else "fp32",
        tolerance=found.tolerance, difference=found.difference, top1_agreement=found.top1,
        batch_sizes=found.batch_sizes, images=found.images, versions=_versions(target), source=subject.checksums,
        recipe=subject.artifact.recipe.name, files=file_records(folder),
        **facts,
    )  # fmt: skip


def _input(subject: Subject) -> Input:
    processor = subject.artifact.processor or {}
    normalises = processor.get("do_normalize", True)
    mean, std = (processor.get(name) if normalises else None for name in ("image_mean", "image_std"))
    channels = subject.image_shape[0]
    return Input(
        name=INPUT, shape=subject.image_shape, mean=_per_channel(mean, channels), std=_per_channel(std, channels)
    )


def _per_channel(value: Any, channels: int) -> Any:
    """Return what a processor normalises by for each channel; it may give one number for all of them."""
    return [value] * channels if isinstance(value, (int, float)) else value


def _versions(target: Target) -> dict[str, str]:
    names = (*LIBRARIES, *(backend.distribution for backend in target.backends))
    return {name: version for name in names if (version := installed_version(name))}
