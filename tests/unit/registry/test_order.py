"""State tags over a whole recipe."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pah_opt import Recipe, Step
from pah_opt.optimizer import Tags
from pah_opt.registry.order import order_problems, working_order


def tags(requires: str = "", provides: str = "", removes: str = "", excludes: str = "") -> Tags:
    return Tags(*(frozenset(names.split()) for names in (requires, provides, removes, excludes)))


def recipe(count: int) -> Recipe:
    return Recipe(steps=[Step.of("abcdefgh"[i]) for i in range(count)])


def test_a_tag_that_a_step_provides_serves_the_next() -> None:
    assert order_problems(recipe(2), [tags(provides="x"), tags(requires="x")], frozenset()) == []


def test_a_tag_given_back_is_there_again() -> None:
    steps = [tags("x", removes="x"), tags(provides="x"), tags("x")]
    assert order_problems(recipe(3), steps, frozenset({"x"})) == []


def test_each_missing_tag_is_traced_to_the_step_that_removed_it() -> None:
    steps = [tags(removes="x"), tags(removes="y"), tags("x y z")]
    (problem,) = order_problems(recipe(3), steps, frozenset({"x", "y"}))
    assert problem.message == (
        "needs 'x', which step 1 (a) removed; needs 'y', which step 2 (b) removed; "
        "needs 'z', which neither the model nor an earlier step provides"
    )
    assert problem.remedy == "no order of these steps works: leave one of them out"


def test_a_tag_that_a_step_would_undo_is_traced_to_the_step_that_provides_it() -> None:
    steps = [tags(provides="x"), tags(excludes="x y")]
    (problem,) = order_problems(recipe(2), steps, frozenset())
    assert problem.message == "would undo 'x', which step 1 (a) provides"
    assert problem.remedy == "this order works: b, a"


def test_a_tag_that_the_model_brings_and_a_step_would_undo_is_named() -> None:
    (problem,) = order_problems(recipe(1), [tags(excludes="x")], frozenset({"x"}))
    assert problem.message == "would undo 'x', which the model has from the start"


def test_a_tag_that_is_gone_again_is_not_undone() -> None:
    assert order_problems(recipe(2), [tags(removes="x"), tags(excludes="x")], frozenset({"x"})) == []


def test_the_working_order_keeps_to_the_users_as_far_as_it_can() -> None:
    steps = [tags("x", removes="x"), tags(""), tags("x"), tags("")]
    assert working_order(steps, frozenset({"x"})) == (1, 2, 0, 3)


def test_after_a_step_of_unknown_effect_only_certain_problems_are_reported() -> None:
    steps = [tags(removes="x"), None, tags("x y", removes="y", excludes="z"), tags("y")]
    (problem,) = order_problems(recipe(4), steps, frozenset({"x", "z"}))
    assert problem.place.step == 3
    assert problem.message == "needs 'y', which step 3 (c) removed"
    assert problem.remedy is None


def test_many_steps_without_a_working_order_are_given_up_in_time() -> None:
    steps = [tags("x", provides=f"t{i}") for i in range(40)] + [tags("never")]
    assert working_order(steps, frozenset({"x"})) is None


some_tags = st.frozensets(st.sampled_from("wxyz"), max_size=2)
some_steps = st.lists(st.builds(Tags, some_tags, some_tags, some_tags, some_tags), min_size=1, max_size=5)


def works(steps: list[Tags], order: tuple[int, ...], now: frozenset[str]) -> bool:
    for index in order:
        step = steps[index]
        if not step.requires <= now or step.excludes & now:
            return False
        now = (now - step.removes) | step.provides
    return True


@settings(max_examples=300)
@given(some_steps, st.frozensets(st.sampled_from("wxyz")))
def test_the_search_agrees_with_trying_every_order(steps: list[Tags], initial: frozenset[str]) -> None:
    every = [order for order in itertools.permutations(range(len(steps))) if works(steps, order, initial)]
    assert working_order(steps, initial) == (every[0] if every else None)
    in_order = works(steps, tuple(range(len(steps))), initial)
    assert (order_problems(recipe(len(steps)), steps, initial) == []) == in_order
