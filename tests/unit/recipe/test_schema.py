"""Step, Gate and Recipe are frozen data, and say what is wrong with them."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from pah_opt import Gate, Recipe, Step
from pah_opt.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(name="half", steps=[Step.of("a", x=[1, {"b": 2}]), Step.of("b")], gates={"top1_pct": Gate(min=90)})


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no steps": (
        lambda: Recipe(steps=[]),
        "steps: got []; allowed: list of at least 1 mapping with the keys use, with",
    ),
    "steps missing": (Recipe, "'steps' is missing"),
    "a key that is not there": (lambda: Recipe(steps=[Step.of("a")], sed=1), "did you mean 'seed'?"),
    "a negative seed": (lambda: Recipe(steps=[Step.of("a")], seed=-1), "seed: got -1; allowed: whole number >= 0"),
    "an empty name": (lambda: Step.of(""), 'use: got the text ""; allowed: text that is not empty'),
    "a parameter that is no data": (lambda: Step.of("a", x=object()), "with.x: got "),
    "a parameter that is not finite": (lambda: Step.of("a", x=[float("nan")]), "numbers must be finite, got nan"),
    "a parameter that is no Unicode": (lambda: Step.of("a", x="\ud800"), "text must be Unicode"),
    "a gate without limits": (Gate, "a gate needs max, min or both"),
    "a gate nothing passes": (lambda: Gate(min=2, max=1), "min 2.0 is above max 1.0"),
    "a gate at infinity": (lambda: Gate(max=float("inf")), "max: got Infinity"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_a_recipe_error_that_says_what_is_wrong(case: str) -> None:
    make, message = WRONG[case]
    with pytest.raises(RecipeError) as caught:
        make()
    assert message in str(caught.value)
    assert isinstance(caught.value.__cause__, ValidationError)


def test_all_that_is_wrong_comes_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(steps=[{"use": ""}, {"with": 3}], seed="x")  # type: ignore[list-item, arg-type]
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda r: setattr(r, "seed", 1),
        lambda r: setattr(r.steps[0], "use", "c"),
    ],
)
def test_fields_cannot_be_set(change: Callable[[Recipe], object], recipe: Recipe) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        change(recipe)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.gates.update(size=Gate(max=1)),
        lambda r: r.gates.pop("top1_pct"),
        lambda r: r.steps[0].with_.__setitem__("x", 1),
        lambda r: r.steps[0].with_.setdefault("y", 1),
        lambda r: r.steps[0].with_["x"][1].clear(),
        lambda r: r.steps[1].with_.__ior__({"x": 1}),
    ],
)
def test_what_is_inside_cannot_be_changed_either(change: Callable[[Any], object], recipe: Recipe) -> None:
    before = recipe.to_json()
    with pytest.raises(TypeError, match="a recipe is frozen"):
        change(recipe)
    assert recipe.to_json() == before


def test_the_callers_data_is_not_kept() -> None:
    sizes = [1, 2]
    step = Step.of("a", sizes=sizes)
    sizes.append(3)
    assert step.parameters == {"sizes": [1, 2]}


def test_parameters_are_a_copy(recipe: Recipe) -> None:
    recipe.steps[0].parameters["x"].append(3)
    assert recipe.steps[0].parameters == {"x": [1, {"b": 2}]}


def test_equal_recipes_have_equal_hashes_and_serve_as_keys(recipe: Recipe) -> None:
    again = Recipe.from_json(recipe.to_json())
    assert {recipe: 1}[again] == 1
    assert len({recipe, again, Recipe(steps=recipe.steps)}) == 2


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r)), Recipe.model_copy]
)
def test_copies_are_equal_and_frozen(duplicate: Callable[[Recipe], Recipe], recipe: Recipe) -> None:
    twin = duplicate(recipe)
    assert twin == recipe
    assert hash(twin) == hash(recipe)
    with pytest.raises(TypeError, match="a recipe is frozen"):
        twin.gates.clear()  # type: ignore[attr-defined]


def test_tuples_are_taken_as_lists() -> None:
    assert Step.of("a", sizes=(1, 2)) == Step.of("a", sizes=[1, 2])


def test_a_step_may_be_written_with_with_or_with_() -> None:
    assert Step(use="a", with_={"x": 1}) == Step(**{"use": "a", "with": {"x": 1}}) == Step.of("a", x=1)


def test_defaults_are_left_out_of_data(recipe: Recipe) -> None:
    assert recipe.to_data() == {
        "name": "half",
        "steps": [{"use": "a", "with": {"x": [1, {"b": 2}]}}, {"use": "b"}],
        "gates": {"top1_pct": {"min": 90.0}},
    }


def test_places_in_python_have_no_line(recipe: Recipe) -> None:
    assert str(recipe.place("steps", 0, "with", "x")) == "step 1 (a), with.x"
    assert str(recipe.place("gates", "top1_pct")) == "gates.top1_pct"
