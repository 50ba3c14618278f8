from __future__ import annotations

from typing import Any

import pytest
from tests.unit.study.conftest import DENSE_FIGURES, made_result, study_of

from pah_opt.study.choice import choose
from pah_opt.study.messages import Wording
from pah_opt.study.observations import observations

Rows = dict[str, dict[str, Any]]


def keys(rows: Rows, *, dense: dict[str, Any] | None = None, **study: Any) -> set[str]:
    asked = study.pop("asked", {name: {} for name in rows})
    result = made_result(
        {"dense": {**DENSE_FIGURES, **(dense or {})}, **rows}, study_of(asked, **study)
    )  # fmt: skip
    return {each.key for each in observations(result)}


SPARSE = {
    **DENSE_FIGURES,
    "top1_drop_pp": 0.2,
    "sparsity_pct": 50.0,
    "speedup_x": 1.0,
    "size_x": 1.8,
    "file_bytes": 45e6,
}
INT8 = {
    **DENSE_FIGURES,
    "top1_drop_pp": 0.1,
    "file_bytes": 21e6,
    "size_x": 3.8,
    "speedup_x": 0.5,
    "dtypes": {"int8": 4},
}
CUT = {**DENSE_FIGURES, "top1_drop_pp": 0.5, "macs": 2e9, "speedup_x": 1.8, "size_x": 1.9}
MASKED = {"naive": "masked-pruning", "amount": 0.5, "version": "V1"}
STATIC = {"version": "V1", "steps": [{"use": "torchao", "with": {"scheme": "int8-static", "naive": True}}]}
CLEAR = {"speedup_x": 1.3, "speedup_low_x": 1.2, "speedup_high_x": 1.4}
COMPILED = {"steps": [{"use": "torchao"}, {"use": "compile"}]}
WRONG_INPUT = {"naive": "wrong-normalisation", "version": "V1"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # key: (figures that make it true, the change that makes it false, the study's row or topic)
    "masks_double": ({**SPARSE, "file_bytes": 160e6, "file_without_masks_bytes": 80e6}, {"file_bytes": 82e6}, MASKED),
    "zeros_stored": (SPARSE, {"size_x": 1.0}, {}),
    "zeros_no_faster": (SPARSE, {"speedup_x": 1.3}, {}),
    "zeros_faster": ({**SPARSE, **CLEAR}, {"speedup_low_x": 0.8}, {}),
    "sparsity_bearable": (SPARSE, {"top1_drop_pp": 1.2}, {}),
    "structured_pays": (CUT, {"speedup_x": 1.0}, {"topic": "structured"}),
    "structured_too_much": ({**CUT, "top1_drop_pp": 5.0}, {"top1_drop_pp": 0.5}, {"topic": "structured"}),
    "int8_holds": (INT8, {"top1_drop_pp": 0.8}, {"topic": "quantization"}),
    "int8_breaks": ({**INT8, "top1_drop_pp": 60.0}, {"top1_drop_pp": 0.3}, {"topic": "quantization", **STATIC}),
    "eager_int8_slow": (INT8, {"speedup_x": 1.0}, {}),
    "compiled_int8_fast": ({**INT8, "speedup_x": 2.0}, {"speedup_x": 1.0}, COMPILED),
    "combination_smallest": (INT8, {"top1_drop_pp": 2.0}, {"topic": "combinations"}),
    "collapsed_row": ({**SPARSE, "collapsed": True}, {"collapsed": False}, {}),
    "damaged_row": ({**DENSE_FIGURES, "top1_drop_pp": 9.0}, {"top1_drop_pp": 0.1}, WRONG_INPUT),
    "within_noise": ({**SPARSE, "mcnemar_p": 0.4}, {"mcnemar_p": 0.01}, {}),
}  # fmt: skip


@pytest.mark.parametrize("key", CASES)
def test_a_sentence_is_written_where_its_condition_holds_and_only_there(key: str) -> None:
    figures, change, asked = CASES[key]
    row = {name: value for name, value in asked.items() if name != "topic"}
    topic = {"topic": asked["topic"]} if "topic" in asked else {}
    assert key in keys({"row": figures}, asked={"row": row}, **topic)
    assert key not in keys({"row": {**figures, **change}}, asked={"row": row}, **topic)


@pytest.mark.parametrize(
    ("top1", "said"), [(0.50, "improved"), (0.97, None), (0.99, "no_better")]
)  # fmt: skip
def test_a_row_is_compared_with_the_one_it_is_against(top1: float, said: str | None) -> None:
    asked = {"before": {"version": "V1"}, "after": {"against": "before"}}
    found = keys({"before": {**SPARSE, "top1": top1}, "after": {**SPARSE, "top1": 0.97}}, asked=asked)
    assert found & {"improved", "no_better"} == ({said} if said else set())


def test_sparsity_that_costs_too_much_is_told_after_the_most_that_is_bearable() -> None:
    rows = {
        f"s{zeros}": {**SPARSE, "sparsity_pct": zeros, "top1_drop_pp": lost}
        for zeros, lost in ((10, 0), (50, 0.9), (90, 7))
    }
    result = made_result({"dense": DENSE_FIGURES, **rows}, study_of({name: {} for name in rows}))
    said = {each.key: each.values for each in observations(result)}
    assert (said["sparsity_bearable"]["row"], said["sparsity_too_much"]["row"]) == ("s50", "s90")


def test_a_speed_up_that_noise_explains_is_none() -> None:
    noisy = {**SPARSE, "speedup_x": 1.5, "speedup_low_x": 0.7, "speedup_high_x": 2.0}
    assert "zeros_no_faster" in keys({"row": noisy})
    assert "zeros_faster" not in keys({"row": noisy})
    assert "structured_pays" not in keys({"row": {**CUT, **noisy, "macs": 2e9}}, topic="structured")


def test_energy_is_missed_only_where_it_is_missing() -> None:
    assert "no_energy" in keys({"row": SPARSE})
    assert "no_energy" not in keys({"row": SPARSE}, dense={"j_per_image": 0.1})


def test_sentences_carry_the_measured_figures() -> None:
    result = made_result({"dense": DENSE_FIGURES, "row": SPARSE})
    told = [Wording("en").tell(each) for each in observations(result)]
    assert "Stored without its zeros, row (50.0 % zeros) takes 45.0 MB instead of 80.0 MB." in told


@pytest.mark.parametrize("why", ["error", "unavailable"])
def test_a_row_that_did_not_run_says_nothing(why: str) -> None:
    assert keys({"row": {why: "it broke"}}, dense={"j_per_image": 0.1}) == set()


def test_the_library_is_said_to_have_warned_only_where_it_did() -> None:
    def cause(**given: Any) -> str:
        result = made_result({"dense": DENSE_FIGURES, "row": {**SPARSE, "collapsed": True, **given}})
        return next(each.values["cause"].key for each in observations(result) if each.key == "collapsed_row")  # type: ignore[union-attr]

    assert cause(notes=("step 1 (magnitude-pruning): the model is at chance",)) == "cause_steps"
    assert cause() == "cause_unknown"


def test_zeros_alone_save_nothing_is_said_of_a_file_as_large_as_the_dense_one() -> None:
    masked = {**SPARSE, "file_bytes": 160e6, "file_without_masks_bytes": 80e6}
    assert "masks_double" in keys({"row": masked}, asked={"row": MASKED})
    smaller = keys({"row": {**masked, "file_without_masks_bytes": 60e6}}, asked={"row": MASKED})
    assert smaller & {"masks_double", "masks_grow"} == {"masks_grow"}


EDGE = {"s": (100.0 * (0.96 - 0.95), 1.0), "q": (100.0 * (0.96 - 0.955), 0.5)}
"""Losses of two and of one of 200 images, which floats leave a trace above their limits."""


def test_a_row_exactly_at_its_limit_keeps_it() -> None:
    assert all(lost > limit for lost, limit in EDGE.values()), "no edge is tested"
    assert "sparsity_bearable" in keys({"row": {**SPARSE, "top1_drop_pp": EDGE["s"][0]}})
    assert "structured_pays" in keys({"row": {**CUT, "top1_drop_pp": EDGE["s"][0]}}, topic="structured")
    assert "structured_too_much" not in keys({"row": {**CUT, "top1_drop_pp": EDGE["s"][0]}}, topic="structured")
    assert "int8_holds" in keys({"row": {**INT8, "top1_drop_pp": EDGE["q"][0]}}, topic="quantization")
    assert "combination_smallest" in keys({"row": {**INT8, "top1_drop_pp": EDGE["s"][0]}}, topic="combinations")


def test_a_loss_exactly_at_the_limit_is_no_damage() -> None:
    rows = {"row": {**DENSE_FIGURES, "top1_drop_pp": EDGE["s"][0]}}
    assert "damaged_row" not in keys(rows, asked={"row": WRONG_INPUT})
    assert "int8_breaks" not in keys(rows, asked={"row": STATIC}, topic="quantization")


def test_the_choice_and_the_observations_agree_at_the_limit() -> None:
    rows = {"row": {**SPARSE, "top1_drop_pp": EDGE["s"][0]}}
    result = made_result({"dense": DENSE_FIGURES, **rows}, study_of({"row": {}}))
    assert "row" in choose(result).scores
    assert "sparsity_bearable" in {each.key for each in observations(result)}


def sparse_rows(*shares: tuple[int, float]) -> Rows:
    return {f"s{zeros}": {**SPARSE, "sparsity_pct": zeros, "top1_drop_pp": lost} for zeros, lost in shares}


@pytest.mark.parametrize(
    ("shares", "most", "first"),
    [
        (((50, 4.0), (70, 0.5)), None, None),
        (((30, 0.2), (50, 4.0), (70, 0.5)), "s30", None),  # from 50 % on is not true either
        (((30, 0.2), (50, 4.0), (70, 9.0)), "s30", "s50"),
    ],
)
def test_up_to_is_said_of_a_share_below_which_every_row_keeps_the_limit(
    shares: tuple[tuple[int, float], ...], most: str | None, first: str | None
) -> None:
    said = {each.key: each.values["row"] for each in observations(made_result({
        "dense": DENSE_FIGURES, **sparse_rows(*shares)
    })) if each.key.startswith("sparsity")}  # fmt: skip
    assert (said.get("sparsity_bearable"), said.get("sparsity_too_much")) == (most, first)


@pytest.mark.parametrize(
    ("speed", "low", "high", "said"),
    [
        (1.4, None, None, set()),
        (1.05, 1.02, 1.08, set()),
        (1.4, 1.3, 1.5, {"zeros_faster"}),
        (1.02, 0.95, 1.08, {"zeros_no_faster"}),
        (0.9, 0.85, 0.95, {"zeros_no_faster"}),
    ],
)
def test_zeros_are_said_to_bring_no_speed_only_where_the_interval_says_so(
    speed: float, low: float | None, high: float | None, said: set[str]
) -> None:
    row = {**SPARSE, "speedup_x": speed, "speedup_low_x": low, "speedup_high_x": high}
    assert keys({"row": row}) & {"zeros_faster", "zeros_no_faster"} == said


def test_of_a_dense_model_at_chance_that_alone_is_said() -> None:
    rows = {"row": {**SPARSE, "collapsed": True}, "input": {**DENSE_FIGURES, "top1_drop_pp": 9.0}}
    asked = {"row": {}, "input": WRONG_INPUT}
    assert keys(rows, dense={"collapsed": True, "top1": 0.1}, asked=asked) == {"dense_at_chance"}


@pytest.mark.parametrize(
    ("scheme", "said"), [("int8-dynamic", "eager_int8_slow"), ("int8-weight-only", "eager_int8_weights_slow")]
)
def test_a_slow_int8_row_is_explained_by_its_scheme(scheme: str, said: str) -> None:
    asked = {"row": {"steps": [{"use": "torchao", "with": {"scheme": scheme}}]}}
    found = keys({"row": INT8}, asked=asked)
    assert found & {"eager_int8_slow", "eager_int8_weights_slow"} == {said}


@pytest.mark.parametrize(("drop", "words"), [(-0.67, "gains 0.67 points"), (0.5, "loses 0.50 points")])
def test_a_gain_is_called_a_gain(drop: float, words: str) -> None:
    result = made_result(
        {"dense": DENSE_FIGURES, "row": {**CUT, "top1_drop_pp": drop}}, study_of({"row": {}}, "structured")
    )
    said = next(each for each in observations(result) if each.key == "structured_pays")
    assert words in Wording("en").tell(said)


def test_a_warning_of_something_else_is_no_cause_of_chance() -> None:
    row = {**SPARSE, "collapsed": True, "notes": ("training stopped: the loss became nan",)}
    result = made_result({"dense": DENSE_FIGURES, "row": row})
    assert [each.values["cause"].key for each in observations(result) if each.key == "collapsed_row"] == [
        "cause_unknown"
    ]  # type: ignore[union-attr]


def test_energy_that_was_not_asked_for_is_not_missed() -> None:
    assert "no_energy" not in keys({"row": SPARSE}, measure={"groups": ["latency", "memory"]})
    assert "no_energy" in keys({"row": SPARSE})
