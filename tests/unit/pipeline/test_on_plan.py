from __future__ import annotations

import pytest

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.pipeline import Plan
from pah_opt.testing.models import tiny_vit


def test_the_plan_is_given_before_the_first_step_and_may_end_the_run() -> None:
    model, seen = tiny_vit(), []
    recipe = Recipe(steps=(Step.of("structured-pruning", mlp=0.5),))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def look(planned: Plan) -> None:
        seen.append(planned)
        raise KeyError("too large")

    with pytest.raises(KeyError, match="too large"):
        pah_opt.apply(model, recipe, on_plan=look)
    assert seen == [pah_opt.plan(model, recipe, calibration=False, training=False)]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())

    seen.clear()
    made = pah_opt.apply(model, recipe, on_plan=seen.append)
    assert seen[0].steps[-1].figures.macs == made.steps[-1].after["macs"]
