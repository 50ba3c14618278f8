from __future__ import annotations

import re
from typing import Any

import pytest
from tests.unit.study.conftest import DENSE_FIGURES, made_result, study_of

from pah_opt.study import tables
from pah_opt.study.choice import by_size, choose, chosen_base
from pah_opt.study.messages import Lang, Wording
from pah_opt.study.results import AdaptationResult, Figures, RowResult
from pah_opt.study.schema import Study
from pah_opt.study.verdict import place_among, verdict

ROWS: dict[str, dict[str, Any]] = {
    "small": {"top1": 0.965, "top1_drop_pp": 0.5, "file_bytes": 10e6, "size_x": 8.0, "speedup_x": 0.9},
    "fast": {"top1": 0.962, "top1_drop_pp": 0.8, "file_bytes": 40e6, "size_x": 2.0, "speedup_x": 4.0},
    "exact": {"top1": 0.97, "top1_drop_pp": 0.0, "file_bytes": 70e6, "size_x": 1.15, "speedup_x": 1.1},
    "beaten": {"top1": 0.95, "top1_drop_pp": 2.0, "file_bytes": 75e6, "size_x": 1.1, "speedup_x": 0.8},
}


def result(priorities: dict[str, Any] | None = None, **study: Any) -> Any:
    asked = study_of({name: {} for name in ROWS}, **({"priorities": priorities} if priorities else {}), **study)
    return made_result({"dense": DENSE_FIGURES, **ROWS}, asked)


@pytest.mark.parametrize(
    ("weights", "pick"),
    [
        ({"size": 1, "latency": 0, "accuracy": 1}, "small"),
        ({"size": 0, "latency": 1, "accuracy": 1}, "fast"),
        ({"size": 0.05, "latency": 0.05, "accuracy": 10}, "exact"),
        ({"size": 0, "latency": 0, "accuracy": 0}, "dense"),
    ],
)
def test_other_priorities_pick_other_rows(weights: dict[str, float], pick: str) -> None:
    chosen = choose(result({"weights": weights})).pick
    assert chosen is not None
    assert chosen.name == pick


@pytest.mark.parametrize(("low", "high"), [(0.5, 9.0), (None, None)])
def test_a_gain_of_speed_that_noise_explains_counts_for_nothing(low: float | None, high: float | None) -> None:
    noise = {**ROWS["exact"], "size_x": 1.0, "speedup_x": 3.0, "speedup_low_x": low, "speedup_high_x": high}
    choice = choose(made_result({"dense": DENSE_FIGURES, "row": noise}, study_of({"row": {}})))
    assert choice.scores == {"dense": 0.0, "row": 0.0}


def test_limits_come_before_worth() -> None:
    choice = choose(result({"weights": {"size": 9}, "limits": {"top1_drop_pp": {"max": 0.1}}}))
    assert choice.pick is not None
    assert choice.pick.name == "exact"
    assert choice.refused == 3
    assert choose(result({"limits": {"top1": {"min": 0.99}}})).pick is None


def test_the_front_holds_what_nothing_beats_in_everything() -> None:
    assert {line.name for line in choose(result()).front} == {"small", "fast", "exact"}


def test_naive_failed_and_collapsed_rows_are_no_candidates() -> None:
    best = {"top1": 0.999, "top1_drop_pp": -3.0, "file_bytes": 1e6, "size_x": 80.0, "speedup_x": 9.0}
    asked = study_of({"naive": {"version": "V1"}, "gone": {}, "broken": {}, "fine": {}})
    rows = {"naive": best, "gone": {**best, "collapsed": True}, "broken": {"error": "no"}, "fine": ROWS["small"]}
    choice = choose(made_result({"dense": DENSE_FIGURES, **rows}, asked))
    assert set(choice.scores) == {"dense", "fine"}


def test_a_cost_with_a_weight_that_was_not_measured_is_named() -> None:
    choice = choose(result({"weights": {"energy": 2.0}}))
    assert choice.unmeasured == ("energy",)
    told = [Wording("en").tell(each) for each in verdict(result(), choice, Wording("en"))]
    assert "Energy has a weight and could not be measured here." in told


def test_the_verdict_names_pick_and_runner_up_with_the_reason() -> None:
    found = result({"weights": {"size": 1, "latency": 0, "accuracy": 1}})
    told = " ".join(Wording("en").tell(each) for each in verdict(found, choose(found), Wording("en")))
    assert "Pick: small. Top-1 96.50 % (\N{MINUS SIGN}0.50 points against dense), file 10.0 MB" in told
    assert "Runner-up: exact, worth 0.20 points; its file has 70.0 MB where the pick has 10.0 MB." in told


@pytest.mark.parametrize(("lang", "said"), [("en", r"among (\d) rows on the"), ("fr", r"parmi (\d) lignes sur les")])
def test_the_pick_is_said_to_be_judged_by_what_chose_it(lang: Lang, said: str) -> None:
    found = result({"weights": {"size": 1, "latency": 0, "accuracy": 1}})
    among = re.search(said, told(found, lang))
    assert among is not None
    assert int(among.group(1)) == len(choose(found).scores)


def test_choice_by_size_takes_the_most_accurate_row_that_fits() -> None:
    found = [(size, line and line.name) for size, line in by_size(result(sizes_mb=[5, 25, 50, 100]))]
    assert found == [(5, None), (25, "small"), (50, "small"), (100, "exact")]


def test_the_place_among_published_figures_counts_those_below() -> None:
    published = [{"model": "a", "top1_pct": 95, "source": "x"}, {"model": "b", "top1_pct": 99, "source": "y"}]
    found = result(references=published)
    assert "above 1 of 2 published figures: a." in place_among(found, choose(found), Wording("en"))[0]
    found = result(references=published[1:])
    assert "below all 1" in place_among(found, choose(found), Wording("en"))[0]


@pytest.mark.parametrize(("tolerance", "base"), [(0.3, "slow"), (0.5, "quick"), (1.0, "quick")])  # 0.5: the difference
def test_the_base_is_the_quickest_of_those_as_good_as_the_best(tolerance: float, base: str) -> None:
    study = Study.model_validate({**study_of({"a": {}}), "base_tolerance_pp": tolerance})
    adaptations = [
        AdaptationResult(name="slow", seed=0, top1=0.9, validation_top1=0.97, seconds=100.0),
        AdaptationResult(name="quick", seed=0, top1=0.99, validation_top1=0.965, seconds=10.0),
        AdaptationResult(name="broken", seed=0, error="no"),
    ]
    assert chosen_base(study, adaptations) == base


def told(found: Any, lang: Lang = "en") -> str:
    wording = Wording(lang)
    return " ".join(wording.tell(each) for each in verdict(found, choose(found), wording))


def test_the_reason_of_the_runner_up_is_weighed_by_the_priorities() -> None:
    fast = {**ROWS["fast"], "speedup_x": 1.4, "speedup_low_x": 0.8, "speedup_high_x": 2.0}
    slow = {
        **ROWS["fast"],
        "file_bytes": 44e6,
        "size_x": 1.8,
        "speedup_low_x": 0.5,
        "speedup_high_x": 1.5,
        "speedup_x": 0.9,
    }
    rows = {"dense": DENSE_FIGURES, "fast": fast, "slow": slow}
    weights = {"size": 1, "latency": 0, "accuracy": 1}
    found = made_result(rows, study_of({"fast": {}, "slow": {}}, priorities={"weights": weights}))
    assert "Runner-up: slow, worth 0.05 points; its file has 44.0 MB where the pick has 40.0 MB." in told(found)
    found = made_result(rows, study_of({"fast": {}, "slow": {}}, priorities={"weights": {**weights, "latency": 9}}))
    assert "its file has" in told(found)  # noise explains both speeds


def test_a_gain_of_energy_can_be_the_reason() -> None:
    rows = {name: {**ROWS["fast"], "energy_x": energy} for name, energy in (("good", 4.0), ("bad", 1.0))}
    asked = study_of({"good": {}, "bad": {}}, priorities={"weights": {"energy": 1}})
    assert "it draws 1.00\N{MULTIPLICATION SIGN} the dense model's images from a joule" in told(
        made_result({"dense": DENSE_FIGURES, **rows}, asked)
    )


def test_without_a_cost_that_counts_the_front_is_of_accuracy_alone() -> None:
    found = result({"weights": {"size": 0, "latency": 0, "accuracy": 1}})
    assert "in everything at once (accuracy): " in told(found)
    assert "(exactitude) : " in told(found, "fr")


def test_a_dense_model_at_chance_is_the_reason_why_nothing_is_chosen() -> None:
    row = {**ROWS["small"], "collapsed": True}
    found = made_result({"dense": {**DENSE_FIGURES, "collapsed": True}, "row": row}, study_of({"row": {}}))
    assert "the adapted model itself is at chance" in told(found)
    assert "milder strengths" not in told(found)


def test_limits_are_named_in_the_language_of_the_report() -> None:
    found = result({"limits": {"top1_drop_pp": {"max": 1.0}, "file_bytes": {"max": 50e6}}})
    assert "Limits: loss of top-1 at most 1.00 points; file at most 50.0 MB." in told(found)
    assert "Limites : perte de top-1 d'au plus 1,00 point" in told(found, "fr")


def test_the_dense_model_is_not_faster_than_itself() -> None:
    assert choose(result({"limits": {"speedup_x": {"min": 5.0}}})).pick is None, "the fastest row has 4.0"


def test_without_sizes_the_choice_is_made_by_the_rest() -> None:
    row = {"top1": 0.97, "top1_drop_pp": 0.0, "speedup_x": 2.0, "speedup_low_x": 1.9, "speedup_high_x": 2.1}
    choice = choose(made_result({"dense": {"top1": 0.97}, "row": row}, study_of({"row": {}})))
    assert choice.pick is not None
    assert choice.pick.name == "row"
    assert "size" in choice.unmeasured


def test_where_nothing_ran_no_limit_is_blamed() -> None:
    found = told(made_result({"row": {"error": "no"}}, study_of({"row": {}})))
    assert "no row has figures" in found
    assert "limit" not in found


def test_rows_with_other_seeds_are_compared_by_what_they_lose_on_them_and_say_so() -> None:
    def row(name: str, seed: int, top1: float, drop: float | None, p: float | None = None) -> RowResult:
        size = 80e6 if drop is None else 10e6
        figures = Figures(top1=top1, top1_drop_pp=drop, file_bytes=size, mcnemar_p=p)
        return RowResult(name=name, base="full", seed=seed, figures=figures)

    asked = study_of({"whole": {}, "half": {}}, seeds=[0, 1], sizes_mb=[50])
    rows = (
        row("dense", 0, 0.90, None), row("dense", 1, 0.96, None),
        row("whole", 0, 0.897, 0.3, p=0.001), row("whole", 1, 0.957, 0.3, p=0.2),
        RowResult(name="half", base="full", seed=0, error="no"), row("half", 1, 0.955, 0.5),
    )  # fmt: skip
    found = made_result({"dense": DENSE_FIGURES}, asked).model_copy(update={"rows": rows})
    best = by_size(found)[0][1]
    assert best is not None
    assert best.name == "whole"
    whole, table = found.line("whole"), tables.rows(found.lines(), Wording("en"))
    assert {row[0]: "seeds missing" in " ".join(row) for row in table.rows} == {
        "dense": False, "whole": False, "half": True,
    }  # fmt: skip
    assert whole is not None
    assert whole.figures.mcnemar_p == pytest.approx(0.002), "of a mean, 0.1, the first seed would be forgotten"


def test_a_throughput_at_another_batch_says_so() -> None:
    made = made_result({
        "dense": {**DENSE_FIGURES, "images_per_s": 100.0, "throughput_batch": 8},
        "row": {**DENSE_FIGURES, "images_per_s": 40.0, "throughput_batch": 4, "dense_images_per_s": 80.0},
    }, study_of({"row": {}}))  # fmt: skip
    table = tables.rows(made.lines(), Wording("en"))
    at = table.headers.index("images/s, batch 8")
    assert [row[at] for row in table.rows] == ["100", "40.0 (batch 4)"]
