"""Which picks of a search the test images have seen: one is measured once, and a second is said to be the second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.errors import MeasurementError
from pah_opt.report import Report

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.search.study import Study

HERE = "pick/report.json"
"""Where a search's folder holds the report of its pick."""


@dataclass(frozen=True)
class Looks:
    """Looks of one search at the test images.

    Args:
        study: remembers them.
        folder: of the search.
        key: of the pick and the test images.
    """

    study: Study
    folder: Path
    key: str

    def earlier(self) -> Report | None:
        """Return what an earlier run measured of this very pick; None where it did not, or the report is gone."""
        if self.study.reported != self.key:
            return None
        try:
            return Report.load(self.folder / HERE)
        except MeasurementError:
            return None

    def keep(self, report: Report) -> None:
        """Remember that the pick was measured; a report that ctrl-C cut short is no look."""
        self.study.keep_reported("")  # from now on, until it is written, the folder holds another pick's report
        if report.complete:
            self.study.keep_measured(self.key)

    def written(self) -> None:
        """Remember that the folder holds the report of this pick, so that a later run need not measure it again."""
        if self.study.measured[-1:] == [self.key]:
            self.study.keep_reported(self.key)

    def notes(self) -> list[str]:
        """Return what must be said of picks that were measured before this one."""
        before = sum(key != self.key for key in self.study.measured)
        if not before:
            return []
        picks = f"{before} earlier pick{'s' if before > 1 else ''}"
        return [f"the test images have judged {picks} of this search: as a second look, these figures may flatter"]
