"""Everything that is wrong with a recipe, at once, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pah_opt import Recipe, Step
from pah_opt.environment import Environment, Obstacle
from pah_opt.errors import IncompatibleStepsError, Problem, RecipeError, UnknownOptimizerError
from pah_opt.optimizer import FRESH_TAGS, AnyOptimizer
from pah_opt.plugins import LoadedPlugin, Plugins
from pah_opt.registry import CheckedRecipe, Registry, missing_here, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HERE = Environment(cuda=False)


def check(registry: Registry, *steps: Step, **options: Any) -> CheckedRecipe:
    return validate(Recipe(steps=steps), registry, **{"environment": HERE, **options})


def wrong(
    registry: Registry, *steps: Step, kind: type[RecipeError] = RecipeError, **options: Any
) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        check(registry, *steps, **options)
    assert type(caught.value) is kind
    return caught.value.problems


def test_a_right_recipe_becomes_typed_steps(registry: Registry) -> None:
    checked = check(registry, Step.of("prune", ratio=0.25), Step.of("quantize", scheme="int8"))
    first, second = checked.steps
    assert (first.index, second.index) == (0, 1)
    assert first.config.model_dump() == {"ratio": 0.25, "scope": "layer"}
    assert second.tags.provides == {"linear:int8"}
    assert second.step == Step.of("quantize", scheme="int8")
    assert checked.initial_tags == FRESH_TAGS


def test_an_unknown_strategy_is_named_with_the_nearest(registry: Registry) -> None:
    first, second = wrong(registry, Step.of("prunes"), Step.of("xyz"), kind=UnknownOptimizerError)
    assert (first.place.step, first.place.use, first.nearest) == (0, "prunes", "prune")
    assert (second.place.step, second.nearest) == (1, None)
    assert str(first).startswith("step 1 (prunes), use: there is no strategy 'prunes'; allowed: prune, quantize")


def test_wrong_parameters_are_placed_in_their_step(registry: Registry) -> None:
    (problem,) = wrong(registry, Step.of("train"), Step.of("prune", ratio=1.5))
    assert (problem.place.step, problem.place.use, problem.place.field) == (1, "prune", "with.ratio")
    assert (problem.message, problem.allowed) == ("got 1.5", "number > 0 and < 1")
    assert problem.remedy == "parameters: pah-opt list prune"


def test_a_bad_parameter_in_any_step_is_found_with_everything_else(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "steps:\n"
        "  - use: quantise\n"
        "  - use: prune\n"
        "    with:\n"
        "      ratio: '0.5'\n"
        "      scop: layer\n"
        "  - use: quantize\n"
        "  - use: train\n"
        "gates:\n"
        "  top1: {max: 1}\n"
    )
    with pytest.raises(RecipeError) as caught:
        validate(
            Recipe.from_yaml(path), registry, environment=HERE, training=False, known_figures=["top1_pct", "p50_ms"]
        )
    assert [(p.place.line, p.message, p.nearest) for p in caught.value.problems] == [
        (2, "there is no strategy 'quantise'", "quantize"),
        (5, 'got the text "0.5"', None),
        (6, "there is no 'scop' here", "scope"),
        (7, "'scheme' is missing", None),
        (8, "needs training images with labels, and there are none", None),
        (10, "there is no figure 'top1'", "top1_pct"),
    ]
    assert {p.place.file for p in caught.value.problems} == {str(path)}
    assert str(caught.value).startswith("recipe 'recipe' cannot be run (6 problems):")


def test_missing_images_are_named_with_the_remedy(registry: Registry) -> None:
    (problem,) = wrong(registry, Step.of("quantize", scheme="static"), calibration=False)
    assert problem.message == "needs calibration images, and there are none"
    assert "--data" in str(problem.remedy)
    assert check(registry, Step.of("quantize", scheme="int8"), calibration=False)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (Environment(cuda=False), "needs a CUDA device, and there is none"),
        (
            Environment(cuda=True, capability=(8, 0)),
            "needs a CUDA device of compute capability 8.9 or newer, this one is of capability 8.0",
        ),
    ],
)
def test_missing_hardware_is_named_with_what_to_use_instead(
    environment: Environment, message: str, registry: Registry
) -> None:
    (problem,) = wrong(registry, Step.of("quantize", scheme="fp8"), environment=environment)
    assert problem.message == message
    assert str(problem.remedy).endswith("or use scheme: int8")


def test_hardware_that_suffices_is_accepted(registry: Registry) -> None:
    environment = Environment(cuda=True, capability=(9, 0))
    assert check(registry, Step.of("quantize", scheme="fp8"), environment=environment)


def test_a_missing_library_is_named_with_how_to_get_it(registry: Registry) -> None:
    (problem,) = wrong(registry, Step.of("quantize", scheme="int8"), Step.of("pack"))
    assert problem.message == "no-such-library is not installed"
    assert problem.remedy == "pip install 'pah-opt[pack]'"
    assert problem.place.step == 1


def test_a_wrong_order_is_refused_with_the_order_that_works(registry: Registry) -> None:
    (problem,) = wrong(registry, Step.of("quantize", scheme="int8"), Step.of("prune"), kind=IncompatibleStepsError)
    assert problem.place.step == 1
    assert problem.message == "needs 'shapes:free' and 'weights:float', which step 1 (quantize) removed"
    assert problem.remedy == "this order works: prune, quantize"


def test_a_wrong_order_beside_another_mistake_is_a_plain_recipe_error(registry: Registry) -> None:
    problems = wrong(registry, Step.of("quantize", scheme="int8"), Step.of("prune"), Step.of("prune", ratio=7))
    assert [problem.place.step for problem in problems] == [1, 2]


def test_tags_of_the_model_itself_count(registry: Registry) -> None:
    (problem,) = wrong(
        registry, Step.of("prune"), kind=IncompatibleStepsError, initial_tags=frozenset({"linear:int8", "graph:eager"})
    )
    assert (
        problem.message
        == "needs 'shapes:free' and 'weights:float', which neither the model nor an earlier step provides"
    )


def test_widths_follow_what_every_later_step_asks_for(registry: Registry) -> None:
    checked = check(registry, Step.of("prune"), Step.of("train"), Step.of("quantize", scheme="int8"))
    assert [step.align for step in checked.steps] == [192, 64, 1]


BAD_ANSWERS: dict[str, Any] = {
    "tags": lambda self, config: {"weights:float"},
    "needs": lambda self, config: None,
    "alignment": lambda self, config: "64",
    "available": lambda self, environment: None,
}


@pytest.mark.parametrize("method", BAD_ANSWERS)
def test_a_wrong_answer_of_a_plugin_is_a_problem_of_its_step(
    method: str, changed: Callable[..., AnyOptimizer], plugin: Callable[..., LoadedPlugin], registry: Registry
) -> None:
    odd = changed(name="odd", **{method: BAD_ANSWERS[method]})
    with_odd = Registry.of(Plugins(loaded=(*registry.plugins.loaded, plugin("odd", odd))))
    problems = wrong(with_odd, Step.of("odd"), Step.of("prunes"))
    assert problems[0].message.startswith(f"its {method}() returned ")
    assert problems[1].message == "there is no strategy 'prunes'"


@pytest.mark.parametrize("method", ["tags", "needs", "alignment", "available"])
def test_a_plugin_that_raises_while_it_is_asked_is_a_problem_of_its_step(
    method: str, changed: Callable[..., AnyOptimizer], plugin: Callable[..., LoadedPlugin]
) -> None:
    def raises(self: object, argument: object) -> None:
        raise KeyError("gone")

    odd = Registry.of(Plugins(loaded=(plugin("odd", changed(name="odd", **{method: raises})),)))
    (problem,) = wrong(odd, Step.of("odd"))
    assert problem.message == f"its {method}() failed with KeyError: 'gone'"


def test_an_obstacle_that_a_strategy_names_itself_is_passed_on(
    changed: Callable[..., AnyOptimizer], plugin: Callable[..., LoadedPlugin]
) -> None:
    blocked = changed(name="blocked", available=lambda self, environment: (Obstacle("no compiler", "install gcc"),))
    (problem,) = wrong(Registry.of(Plugins(loaded=(plugin("p", blocked),))), Step.of("blocked"))
    assert (problem.message, problem.remedy) == ("no compiler", "install gcc")


def test_for_any_machine_what_this_one_lacks_is_no_mistake(registry: Registry) -> None:
    steps = (Step.of("quantize", scheme="int8"), Step.of("pack"))
    assert len(check(registry, *steps, environment=None).steps) == 2
    assert len(check(registry, Step.of("quantize", scheme="fp8"), environment=None).steps) == 1


def test_what_this_machine_lacks_is_named_for_the_steps_own_parameters(registry: Registry) -> None:
    def lacking(*steps: Step) -> list[str]:
        return [obstacle.reason for obstacle in missing_here(Recipe(steps=steps), registry, HERE)]

    assert lacking(Step.of("quantize", scheme="int8")) == []
    assert lacking(Step.of("quantize", scheme="fp8")) == ["needs a CUDA device, and there is none"]
    assert lacking(Step.of("quantize", scheme="int8"), Step.of("pack")) == ["no-such-library is not installed"]
