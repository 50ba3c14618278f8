from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pah_opt.search.looks import Looks

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.report import Report
    from pah_opt.search.study import Study


@pytest.mark.parametrize(
    ("measured", "said"),
    [([], None), (["mine"], None), (["other"], "1 earlier pick "), (["a", "b"], "2 earlier picks ")],
)
def test_only_the_first_pick_that_test_images_judge_is_without_a_note(
    measured: list[str], said: str | None, tmp_path: Path
) -> None:
    looks = Looks(cast("Study", SimpleNamespace(measured=measured)), tmp_path, "mine")
    assert [said in note for note in looks.notes() if said] == ([True] if said else [])
    assert bool(looks.notes()) is (said is not None)


@dataclass
class FakeStudy:
    """What a study remembers of looks."""

    measured: list[str] = field(default_factory=list)
    reported: str = ""

    def keep_measured(self, key: str) -> None:
        self.measured.append(key)

    def keep_reported(self, key: str) -> None:
        self.reported = key


def looks_of(study: FakeStudy, folder: Path, key: str) -> Looks:
    return Looks(cast("Study", study), folder, key)


@pytest.mark.parametrize(("complete", "kept"), [(True, ["mine"]), (False, [])])
def test_a_report_that_was_cut_short_is_no_look(complete: bool, kept: list[str], tmp_path: Path) -> None:
    study = FakeStudy()
    looks = looks_of(study, tmp_path, "mine")
    looks.keep(cast("Report", SimpleNamespace(complete=complete)))
    assert study.measured == kept
    looks.written()
    assert study.reported == ("mine" if complete else "")


def test_a_report_is_taken_for_a_picks_only_once_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that dies between measuring a second pick and writing must not take the first pick's report for it."""
    first, second = (cast("Report", SimpleNamespace(complete=True, of=name)) for name in ("first", "second"))
    study, found = FakeStudy(), [first]
    monkeypatch.setattr("pah_opt.search.looks.Report.load", lambda _: found[0])
    looks_of(study, tmp_path, "first").keep(first)
    looks_of(study, tmp_path, "first").written()
    assert looks_of(study, tmp_path, "first").earlier() is first
    looks = looks_of(study, tmp_path, "second")
    assert looks.earlier() is None
    looks.keep(second)
    assert looks_of(study, tmp_path, "second").earlier() is None, "the folder still holds the first one's"
    found[0] = second
    looks.written()
    assert looks_of(study, tmp_path, "second").earlier() is second
