"""The page of a search: every trial's record is in it."""

from __future__ import annotations

import pytest

from pah_opt.recipe import Recipe, Step
from pah_opt.search import Budget, Record, SearchResult, Space
from pah_opt.search.page import latency_off, to_html
from pah_opt.search.records import Rung

RECIPE = Recipe(name="half", steps=[Step.of("magnitude-pruning", sparsity=0.5)]).to_data()
TRIAL = Record(
    0, "done", RECIPE, {"1.magnitude-pruning.sparsity": 0.5}, rungs=(Rung(30, 1.5), Rung(90, 0.75)),
    figures={"top1_drop_pp": 0.75, "latency_p50_ms": 10.0, "params": 12.5e6, "j_per_image": 0.125},
    predicted={"latency_p50_ms": 10.8},
)  # fmt: skip
SPACE = Space(name="demo", steps=[{"use": "magnitude-pruning"}])


def page(budget: Budget, *records: Record) -> str:
    return to_html(SearchResult(SPACE, budget, {}, records, records, None, None))


@pytest.mark.parametrize(
    ("minimise", "head", "cell"), [("energy", "J an image", "0.125"), ("params", "million parameters", "12.5")]
)
def test_the_figure_that_is_minimised_has_a_column(minimise: str, head: str, cell: str) -> None:
    shown = page(Budget(minimise=minimise), TRIAL)
    assert f'<th scope="col">{head}</th>' in shown
    assert f"<td>{cell}</td>" in shown
    assert head not in page(Budget(minimise="latency"), TRIAL)


def test_predicted_and_measured_latency_are_set_side_by_side() -> None:
    shown = page(Budget(), TRIAL, Record(1, "over", RECIPE, predicted={"latency_p50_ms": 3.0}))
    assert "<td>+8.0 %</td>" in shown
    assert "Latencies of 1 trials were predicted before they ran: off by 8.0 % (median)" in shown
    assert latency_off(TRIAL) == pytest.approx(0.08)
    assert "predicted before they ran" not in page(Budget(), Record(1, "over", RECIPE))


def test_details_hold_figures_parts_of_the_images_and_what_was_chosen() -> None:
    shown = page(Budget(), TRIAL)
    assert "measured: top1_drop_pp 0.75, latency_p50_ms 10, params 1.25e+07, j_per_image 0.125" in shown
    assert "top-1 lost on growing parts: +1.50 pp on 30, +0.75 pp on 90" in shown
    assert "chosen: 1.magnitude-pruning.sparsity 0.5" in shown


def test_notes_stand_at_the_head() -> None:
    result = SearchResult(SPACE, Budget(), {}, (TRIAL,), (TRIAL,), None, None, notes=("a <second> look",))
    assert '<p class="note">a &lt;second&gt; look</p>' in to_html(result)
    assert result.to_data()["notes"] == ["a <second> look"]
