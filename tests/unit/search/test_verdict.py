"""Why a search has no pick, in words that are true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pah_opt.recipe import Recipe, Step
from pah_opt.search import Budget, Record
from pah_opt.search.verdict import no_pick

if TYPE_CHECKING:
    from pah_opt.search.loop import End
    from pah_opt.search.records import State

BUDGET = Budget(minimise="latency", top1_drop_pp=5)
DENSE: dict[str, float | None] = {"latency_p50_ms": 18.4, "top1_drop_pp": 0.0}


def trial(number: int, latency_ms: float | None, drop_pp: float = 0.0, state: State = "done") -> Record:
    made = Recipe(name=f"int-{number}", steps=[Step.of("torchao")])
    return Record(number, state, made.to_data(), figures={"latency_p50_ms": latency_ms, "top1_drop_pp": drop_pp})


def test_where_the_dense_model_is_cheapest_that_is_said_with_the_nearest_recipe() -> None:
    records = [Record(0, "done", None, figures=DENSE), trial(1, 31.0), trial(2, 23.5)]
    assert no_pick(records, BUDGET, DENSE, "time") == (
        "the dense model itself is the cheapest that keeps the limits: no recipe has less latency; the nearest is "
        "int-2: 23.5 ms against 18.4 ms"
    )


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (trial(0, 9.0, 7.5), "int-0, which misses: top1_drop_pp 7.5"),
        (trial(0, 9.0, state="stopped"), "int-0, which misses: judged on part of the images only"),
        (trial(0, None), "int-0, which misses: its latency_p50_ms is unknown"),
    ],
)
def test_what_the_nearest_trial_misses_is_named(record: Record, said: str) -> None:
    assert no_pick([record], BUDGET, DENSE, "time").endswith(said)


@pytest.mark.parametrize(("end", "said"), [("time", "give more minutes"), ("ctrl-C", "ctrl-C"), ("error", "an error")])
def test_what_came_before_the_first_trial_is_named(end: End, said: str) -> None:
    assert said in no_pick([], BUDGET, DENSE, end)
