"""Everything that can be rendered of one report, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.errors import ReportError
from pah_opt.report.files import REPORT, remove, write
from pah_opt.report.schema import Report

if TYPE_CHECKING:
    from os import PathLike

JUNIT = "report.xml"
TEXTS = (REPORT, "report.md", "report.csv", "report.html", JUNIT)
TRADEOFF = "accuracy-size.png"
"""Where the plot of accuracy against size goes, in a folder that has plots."""


def remove_report(folder: str | PathLike[str]) -> None:
    """Remove what :func:`write_report` writes, and the folder where nothing else is in it.

    Raises:
        MeasurementError: a file cannot be removed.
    """
    target = Path(folder)
    for name in TEXTS:
        remove(target / name)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()


def plot_name(title: str) -> str:
    """Return the name of the file that the curve of that title is plotted to."""
    return f"{title.replace(' ', '-')}.png"


def write_report(report: Report, folder: str | PathLike[str]) -> tuple[str, ...]:
    """Write ``report.json``, ``.md``, ``.csv`` and ``.html``, and ``report.xml`` (JUnit) when gates were checked.

    What an earlier report there had beside it and this one has not is removed first, so that nothing stands beside
    figures that are not its own: ``report.xml``, and the plots that the earlier ``report.json`` names.

    Returns:
        The names of the files that were written.

    Raises:
        MeasurementError: a file cannot be written or removed.
    """
    target = Path(folder)
    texts = {
        REPORT: report.to_json(), "report.md": report.to_markdown(), "report.csv": report.to_csv(),
        "report.html": report.to_html(),
    }  # fmt: skip
    if any(model.vs_baseline.gates for model in report.models):
        texts[JUNIT] = report.to_junit()
    for name in {JUNIT, *_plots_of_earlier(target)} - texts.keys():
        remove(target / name)
    for name, text in texts.items():
        write(target / name, text)
    return tuple(texts)


def _plots_of_earlier(folder: Path) -> set[str]:
    """Name the plots of the report that is there, none outside its folder; nothing where it cannot be read."""
    try:
        earlier = Report.load(folder / REPORT)
    except ReportError:
        return set()
    names = {TRADEOFF, *map(plot_name, earlier.curves)}
    return {name for name in names if Path(name).name == name}
