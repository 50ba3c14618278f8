from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pah_opt.search.looks import Looks

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize(("complete", "kept"), [(True, ["mine"]), (False, [])])
def test_a_report_that_was_cut_short_is_no_look(complete: bool, kept: list[str], tmp_path: Path) -> None:
    seen: list[str] = []
    looks = Looks(cast("Study", SimpleNamespace(measured=seen, keep_measured=seen.append)), tmp_path, "mine")
    looks.keep(SimpleNamespace(complete=complete))  # type: ignore[arg-type]  # nothing else of a report matters
    assert seen == kept
