"""The folder of results: one JSON, what is rendered from it, plots, and the optimized models when asked."""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from pah_opt.errors import MeasurementError
from pah_opt.report import Curve
from pah_opt.report.folder import write_report
from pah_opt.report.plots import save_curve, save_tradeoff

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pah_opt.report import Report
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
) -> Report:
    """Write ``report.json``, ``report.md``, ``report.csv``, ``report.html`` and PNG plots, each whole or not at all.

    Args:
        folder: where to; made when missing, files of an earlier run are replaced.
        outcome: what to write.
        curves: more curves, such as the training of the dense model, by title.
        artifacts: also save each optimized model under ``artifacts/NAME``.

    Returns:
        The report with every curve: those given, and the loss of each recipe's training steps.

    Raises:
        MeasurementError: a file cannot be written.
        ArtifactError: a model cannot be saved.
    """
    report = outcome.report.with_curves(**{**(curves or {}), **_recovery_curves(outcome)})
    write_report(report, folder)
    save_tradeoff(report, folder / "accuracy-size.png", against="size")
    for title, curve in report.curves.items():
        save_curve(curve, folder / f"{title.replace(' ', '-')}.png", title=title)
    if artifacts:
        for name, artifact in outcome.artifacts.items():
            artifact.save(folder / "artifacts" / name, overwrite=True)
    return report


def _recovery_curves(outcome: Outcome) -> dict[str, Curve]:
    """Return the loss of every training step that recorded one."""
    curves = {}
    for name, artifact in outcome.artifacts.items():
        for number, record in enumerate(artifact.steps, 1):
            losses = record.achieved.get("losses")
            if losses:
                curves[f"loss {name} step {number}"] = Curve(x=tuple(range(1, len(losses) + 1)), y=tuple(losses))
    return curves
