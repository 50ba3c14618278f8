"""Everything that can be rendered of one report, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.report.files import write

if TYPE_CHECKING:
    from os import PathLike

    from pah_opt.report.schema import Report


FILES = tuple(f"report.{ending}" for ending in ("json", "md", "csv", "html", "xml"))


def remove_report(folder: str | PathLike[str]) -> None:
    """Remove what :func:`write_report` writes, and the folder where nothing else is in it."""
    target = Path(folder)
    for name in FILES:
        (target / name).unlink(missing_ok=True)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()


def write_report(report: Report, folder: str | PathLike[str]) -> Path:
    """Write ``report.json``, ``.md``, ``.csv`` and ``.html``, and ``report.xml`` (JUnit) when gates were checked.

    Raises:
        MeasurementError: a file cannot be written.
    """
    target = Path(folder)
    report.save(target / "report.json")
    write(target / "report.md", report.to_markdown())
    write(target / "report.csv", report.to_csv())
    write(target / "report.html", report.to_html())
    if any(model.vs_baseline.gates for model in report.models):
        write(target / "report.xml", report.to_junit())
    return target
