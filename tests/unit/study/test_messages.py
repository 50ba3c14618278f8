from __future__ import annotations

import re
from string import Formatter

import pytest
from tests.unit.study.conftest import DENSE_FIGURES, made_result

from pah_opt.errors import RecipeError
from pah_opt.study.document import document
from pah_opt.study.messages import LANGUAGES, Lang, Value, Wording, catalogue
from pah_opt.study.results import FIGURES
from pah_opt.study.writing import to_html, to_markdown


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_catalogues_have_the_same_keys_with_the_same_figures() -> None:
    english, french = (catalogue(lang) for lang in LANGUAGES)
    assert set(english) == set(french)
    assert {key: placeholders(text) for key, text in english.items()} == {
        key: placeholders(text) for key, text in french.items()
    }


def test_no_message_was_left_untranslated() -> None:
    english, french = catalogue("en"), catalogue("fr")
    same = {key for key, text in english.items() if text == french[key] and len(re.findall(r"[a-z]{2,}", text)) > 1}
    assert same <= {"failed_cell"}


def test_figures_are_written_as_the_language_writes_them() -> None:
    assert Wording("en").write(Value("share", 0.98765)) == "98.77 %"
    assert Wording("fr").write(Value("share", 0.98765)) == "98,77 %"
    assert Wording("fr").write(Value("count", 12345.0)) == "12\N{NARROW NO-BREAK SPACE}345"
    assert Wording("en").write(Value("change", -0.5)) == "\N{MINUS SIGN}0.50 points"
    assert [Wording("fr").write(Value("points", n)) for n in (1.5, 2.0)] == ["1,50 point", "2,00 points"]
    assert Wording("en").write(Value("mb", None)) == "\N{EN DASH}"


def test_an_unknown_language_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match="'fra'; allowed: en, fr; did you mean 'fr'"):
        Wording("fra")  # type: ignore[arg-type]


def test_names_from_outside_cannot_break_the_page_or_the_table() -> None:
    nasty = made_result({"dense": DENSE_FIGURES, "row": {"error": "<script>alert(1)</script>\n| x"}})
    blocks = document(nasty, Wording("en"))
    page = to_html(blocks, "en")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "| x" in to_markdown(blocks).partition("Cells that failed")[2].splitlines()[4]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_figure_that_may_be_limited_has_a_name(lang: Lang) -> None:
    assert {f"figure_{name}" for name in FIGURES} <= set(catalogue(lang))
