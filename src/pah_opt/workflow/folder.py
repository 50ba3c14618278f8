"""The folder of results: one JSON, what is rendered from it, plots, and the optimized models when asked."""

from __future__ import annotations

from dataclasses import replace
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from pah_opt.artifact.files import DESCRIPTION
from pah_opt.errors import MeasurementError
from pah_opt.report import Curve
from pah_opt.report.folder import TRADEOFF, plot_name, write_report
from pah_opt.report.plots import save_curve, save_tradeoff

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pah_opt.workflow.runs import Outcome


def require_writable(folder: Path) -> None:
    """Find out before the work whether results can be written: a file is made, and gone, where they would go.

    Raises:
        MeasurementError: they cannot.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise MeasurementError(
            f"{folder} cannot be written to: {error.strerror or error}; choose another folder with --out"
        ) from error


def write_folder(
    folder: Path, outcome: Outcome, *, curves: Mapping[str, Curve] | None = None, artifacts: bool = False
) -> Outcome:
    """Write ``report.json``, ``report.md``, ``report.csv``, ``report.html`` and PNG plots, each whole or not at all.

    Files of an earlier run are replaced, its plots and its ``report.xml`` removed where this run has none
    (:func:`~pah_opt.report.folder.write_report`). Its artifacts are never removed, only overwritten by those of the
    same name; those that are left are named in ``earlier``.

    Args:
        folder: where to; made when missing.
        outcome: what to write.
        curves: more curves, such as the training of the dense model, by title.
        artifacts: also save each optimized model under ``artifacts/NAME``.

    Returns:
        The outcome with every curve in its report (those given, and the loss of each recipe's training steps), the
        names of the files that were written, and the artifacts that are of an earlier run.

    Raises:
        MeasurementError: a file cannot be written.
        ArtifactError: a model cannot be saved.
    """
    report = outcome.report.with_curves(**{**(curves or {}), **_recovery_curves(outcome)})
    files = [*write_report(report, folder), TRADEOFF]
    save_tradeoff(report, folder / TRADEOFF, against="size")
    for title, curve in report.curves.items():
        save_curve(curve, folder / plot_name(title), title=title)
        files.append(plot_name(title))
    for name, artifact in outcome.artifacts.items() if artifacts else ():
        artifact.save(folder / "artifacts" / name, overwrite=True)
        files.append(f"artifacts/{name}")
    return replace(outcome, report=report, files=tuple(files), earlier=_artifacts_in(folder, but=files))


def _artifacts_in(folder: Path, *, but: Collection[str]) -> tuple[str, ...]:
    """Name the artifacts in a folder of results, but for some."""
    found = sorted(f"artifacts/{each.parent.name}" for each in (folder / "artifacts").glob(f"*/{DESCRIPTION}"))
    return tuple(name for name in found if name not in but)


def _recovery_curves(outcome: Outcome) -> dict[str, Curve]:
    """Return the loss of every training step that recorded one."""
    curves = {}
    for name, artifact in outcome.artifacts.items():
        for number, record in enumerate(artifact.steps, 1):
            losses = record.achieved.get("losses")
            if losses:
                curves[f"loss {name} step {number}"] = Curve(x=tuple(range(1, len(losses) + 1)), y=tuple(losses))
    return curves
