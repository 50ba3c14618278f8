"""The study that once came out at 6 to 10 %: each old failure reproduced, and this library's row beside it right."""

from __future__ import annotations

import json
import re
import statistics
from typing import TYPE_CHECKING

import pytest

import pah_opt
from pah_opt.data import TensorSplit, check_fit
from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.study.adapting import kept_model
from pah_opt.study.messages import Wording
from pah_opt.study.messages.en import MESSAGES
from pah_opt.study.naive import UnscaledPixels
from pah_opt.study.observations import observations
from pah_opt.study.writing import write_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.study.conftest import Finished
    from torch import nn

    from pah_opt.splits import Split
    from pah_opt.study.results import Figures


def figures(finished: Finished, name: str) -> Figures:
    line = finished.result.line(name)
    assert line is not None
    assert line.error is None
    return line.figures


def drop(finished: Finished, name: str) -> float:
    found = figures(finished, name).top1_drop_pp
    assert found is not None
    return found


@pytest.fixture(scope="module")
def dense(finished: Finished) -> nn.Module:
    return kept_model(next((finished.folder / "models").iterdir()), "cpu")


@pytest.fixture(scope="module")
def images() -> Split:
    from pah_opt.adapt.digits import IMAGE_SIZE
    from pah_opt.data import digits_data

    return digits_data(IMAGE_SIZE).test


def test_every_cell_ran_and_the_dense_model_is_good(finished: Finished) -> None:
    assert finished.result.complete
    assert not finished.result.failures
    assert (figures(finished, "dense").top1 or 0) > 0.9


@pytest.mark.parametrize("name", ["int8-weights", "int8-static"])
def test_int8_of_this_library_is_within_half_a_point(finished: Finished, name: str) -> None:
    assert drop(finished, name) <= 0.5


def test_naive_static_int8_is_said_to_break_the_model_where_it_does_and_only_there(finished: Finished) -> None:
    """The digits' ViT has no outliers to ruin it; one that has is in tests/strategies/torchao/test_static.py."""
    said = {each.values["row"] for each in observations(finished.result) if each.key == "int8_breaks"}
    assert ("int8-static-v1" in said) == (drop(finished, "int8-static-v1") > 1.0 + 1e-9)


def test_ten_percent_zeros_cost_at_most_half_a_point(finished: Finished) -> None:
    assert drop(finished, "sparse-10") <= 0.5


def test_repair_keeps_what_naive_pruning_loses(finished: Finished) -> None:
    assert drop(finished, "sparse-50") <= 1.5
    assert drop(finished, "sparse-50-v1") >= drop(finished, "sparse-50") + 1.0


def test_masks_double_the_file_and_zeros_alone_save_nothing(finished: Finished) -> None:
    size, masked = figures(finished, "dense").file_bytes, figures(finished, "sparse-50-v1")
    assert size
    assert masked.file_bytes
    assert masked.file_without_masks_bytes
    assert masked.file_bytes > 1.9 * size
    assert masked.file_without_masks_bytes == pytest.approx(size, rel=0.05)


def test_zeros_are_not_stored_by_this_library(finished: Finished) -> None:
    size = figures(finished, "dense").file_bytes or 0.0
    assert (figures(finished, "sparse-10").file_bytes or 0.0) < size
    assert (figures(finished, "sparse-50").file_bytes or 0.0) < 0.65 * size


def test_the_report_says_in_words_what_zeros_do_to_speed(finished: Finished) -> None:
    said = {each.key: each.values["x"].number for each in observations(finished.result) if "x" in each.values}  # type: ignore[union-attr]
    sparse = [line for name in ("sparse-10", "sparse-50") if (line := finished.result.line(name)) is not None]
    known = [line for line in sparse if line.figures.speedup_low_x is not None]
    slow = bool(known) and all((line.real_speedup or 0.0) <= 1.0 for line in known)
    assert ("zeros_no_faster" in said) >= slow  # without intervals it is left open, and then nothing is said
    if "zeros_no_faster" in said:
        assert said["zeros_no_faster"] == statistics.median(line.figures.speedup_x or 0.0 for line in known)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("fresh-head", "cause_fresh-head"),
        ("unscaled-pixels", "cause_wrong-normalisation"),
        ("shifted-labels", "cause_labels-out-of-step"),
        ("sparse-90-v1", "cause_masked-pruning"),
    ],
)
def test_a_row_at_chance_is_flagged_with_its_cause(finished: Finished, name: str, cause: str) -> None:
    line = finished.result.line(name)
    assert line is not None
    assert drop(finished, name) > 20
    # Pixels that were not scaled leave some models a little better than chance: then the loss itself is named.
    key = "collapsed_row" if line.collapsed else "damaged_row"
    assert line.collapsed or name == "unscaled-pixels"
    said = [each for each in observations(finished.result) if each.values.get("row") == name]
    assert [each.values["cause"].key for each in said if each.key == key] == [cause]  # type: ignore[union-attr]


def test_a_collapsed_row_is_marked_in_the_page_and_never_chosen(finished: Finished) -> None:
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert '<tr class="bad"><th scope="row">fresh-head</th>' in page
    stored = json.loads((finished.folder / "study.json").read_text(encoding="utf-8"))
    assert stored["choice"]["pick"] not in (None, "fresh-head", "sparse-90-v1")
    assert "fresh-head" not in stored["choice"]["front"]


def test_a_head_for_other_classes_is_refused(dense: nn.Module, images: Split) -> None:
    layout = find_adapter(dense, default_registry().adapters).layout(dense)
    pixels = next(images.batches(4)).pixel_values
    with pytest.raises(DataError, match=r"3 classes .* head has 10"):
        check_fit(TensorSplit(pixels, [0, 1, 2, 0], ("a", "b", "c")), layout)  # type: ignore[arg-type]


def test_labels_out_of_step_are_refused(dense: nn.Module, images: Split) -> None:
    layout = find_adapter(dense, default_registry().adapters).layout(dense)
    batch = next(images.batches(4))
    names = (*images.class_names[1:], images.class_names[0])
    with pytest.raises(DataError, match="out of step"):
        check_fit(TensorSplit(batch.pixel_values, batch.labels, names), layout, model=dense)


def test_pixels_that_were_not_normalised_are_refused(dense: nn.Module, images: Split) -> None:
    """The study shows what they do (row ``unscaled-pixels``); everywhere else they are refused before they do it."""
    recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("magnitude-pruning", sparsity=0.5)])
    with pytest.raises(DataError, match="look unscaled: they hold values up to 255"):
        pah_opt.apply(dense, recipe, pah_opt.Data(test=UnscaledPixels.of(images)))


def test_a_model_with_its_masks_left_in_is_refused(dense: nn.Module) -> None:
    import copy

    from torch.nn.utils import prune

    masked = copy.deepcopy(dense)
    prune.l1_unstructured(masked.classifier, "weight", 0.5)
    recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("magnitude-pruning", sparsity=0.5)])
    with pytest.raises(UnsupportedModelError, match="mask"):
        pah_opt.apply(masked, recipe)


def test_the_french_report_has_no_english_sentence(finished: Finished, tmp_path: Path) -> None:
    write_study(finished.result, tmp_path, "fr")
    english = [part.strip() for text in MESSAGES.values() for part in re.split(r"\{\w+\}", text)]
    told = [part for part in english if len(part.split()) >= 3]
    titles = [section.title.en for section in finished.study.sections if not isinstance(section.title, str)]
    for name in ("report.fr.md", "report.fr.html"):
        report = (tmp_path / name).read_text(encoding="utf-8")
        assert [part for part in (*told, *titles) if part in report] == []
        assert "Choix final" in report
    assert "0,22" in report  # decimal commas: one of 450 images
    assert "Final choice" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert Wording("fr").say("choice_title") != Wording("en").say("choice_title")


def test_a_second_run_computes_nothing_and_writes_the_same_figures(finished: Finished) -> None:
    again = pah_opt.study(finished.study, finished.folder)
    assert again.computed == 0
    assert again.rows == finished.result.rows
    assert again.adaptations == finished.result.adaptations
