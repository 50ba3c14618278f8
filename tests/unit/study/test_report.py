"""What a report shows besides figures: why something stopped, what was warned of, what cannot run here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.study.conftest import DENSE_FIGURES, made_result

from pah_opt.errors import RecipeError
from pah_opt.study.document import Plot, document
from pah_opt.study.messages import Lang, Wording
from pah_opt.study.results import AdaptationResult
from pah_opt.study.writing import to_html, to_markdown, write_study

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.study.results import StudyResult

NAN = "the loss became nan at update 3 of 9; use a lower lr"


def result(row: dict[str, Any] | None = None, **adapted: Any) -> StudyResult:
    found = AdaptationResult(name="full", seed=0, top1=0.9, validation_top1=0.9, seconds=9.0, **adapted)
    rows = {"dense": DENSE_FIGURES, **({} if row is None else {"row": row})}
    return made_result(rows, {"adaptations": {"full": {}}, "sections": [
        {"title": "Rows", "rows": [{"name": "row", "steps": [{"use": "magnitude-pruning"}]}]}
    ]}, adaptations=(found,))  # fmt: skip


def markdown(made: StudyResult, lang: Lang = "en") -> str:
    return to_markdown(document(made, Wording(lang)))


@pytest.mark.parametrize(("lang", "word"), [("en", "stopped"), ("fr", "arr\u00eat")])
def test_an_adaptation_that_stopped_says_why(lang: Lang, word: str) -> None:
    line = next(each for each in markdown(result(stopped=NAN), lang).splitlines() if each.startswith("| full"))
    assert word in line
    assert NAN in line
    assert NAN in to_html(document(result(stopped=NAN), Wording(lang)), lang)


@pytest.mark.parametrize(("lang", "title"), [("en", "## Notes"), ("fr", "## Remarques")])
def test_warnings_and_notes_are_told(lang: Lang, title: str) -> None:
    made = result({**DENSE_FIGURES, "notes": ("step 1: the model is at chance",)})
    made = made.model_copy(update={"conditions": made.conditions.model_copy(update={"notes": ("it was enlarged",)})})
    notes = markdown(made, lang).partition(title)[2]
    assert "it was enlarged" in notes
    assert "step 1: the model is at chance" in notes


def test_without_notes_there_is_no_section_for_them() -> None:
    assert "## Notes" not in markdown(result(DENSE_FIGURES))


@pytest.mark.parametrize(("lang", "words"), [("en", "not available here"), ("fr", "non disponible ici")])
def test_a_row_that_cannot_run_here_is_shown_with_its_reason_and_is_no_failure(lang: Lang, words: str) -> None:
    made = result({"unavailable": "it needs a GPU"})
    report = markdown(made, lang)
    assert words in next(each for each in report.splitlines() if each.startswith("| row | V2"))
    assert "it needs a GPU" in report
    assert not made.failures
    assert "Cells that failed" not in report


def titles(made: StudyResult) -> list[str]:
    return [block.title for block in document(made, Wording("en")) if isinstance(block, Plot)]


def test_accuracy_over_epochs_is_drawn_on_validation_images_where_there_are_any() -> None:
    seen = {"train_accuracy": (0.4, 0.8)}
    assert "Accuracy of full on validation images" in titles(result(**seen, validation_accuracy=(0.5, 0.7)))
    assert "Accuracy of full on training images, as seen while training" in titles(result(**seen))
    assert not any("Accuracy of full" in title for title in titles(result(train_accuracy=(0.4,))))


def test_the_report_says_where_the_pictures_of_the_curves_are() -> None:
    assert "full: models/abc/curves.png" in markdown(result(curves="models/abc/curves.png"))
    assert "as pictures" not in markdown(result())


def test_another_language_stands_beside_english_and_is_kept_up_to_date(tmp_path: Path) -> None:
    write_study(result(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"study.json", "report.md", "report.html"}
    write_study(result(), tmp_path, "fr")
    english = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Conditions de mesure" in (tmp_path / "report.fr.md").read_text(encoding="utf-8")
    assert "## Conditions\n" in english
    write_study(result(stopped=NAN), tmp_path)
    assert NAN in (tmp_path / "report.fr.html").read_text(encoding="utf-8")


def test_a_report_in_no_language_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no report in the language"):
        write_study(result(), tmp_path, "de")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row", [None, {"error": "it broke"}, {**DENSE_FIGURES, "notes": ("it was warned of",)}])
@pytest.mark.parametrize("lang", ["en", "fr"])
def test_whatever_is_quoted_is_said_to_be_quoted_once(lang: Lang, row: dict[str, Any] | None) -> None:
    note = Wording(lang).say("language_note")
    report = markdown(result(row, stopped=NAN), lang)
    assert report.count(note) == 1
    assert report.index(NAN) < report.index(note) < report.index(Wording(lang).say("comparison_title"))
    assert markdown(result(row), lang).count(note) == (0 if row is None else 1)


def test_of_the_choice_the_pick_alone_is_the_sentence_to_remember() -> None:
    better = {**DENSE_FIGURES, "top1": 0.95, "top1_drop_pp": -1.0, "size_x": 4.0, "speedup_x": 2.0}
    text = markdown(result(better))
    bold = [line for line in text.splitlines() if line.startswith("**Pick") or "was chosen among" in line]
    assert [line.startswith("**") for line in bold] == [True, False], text
