"""What each step of a recipe is worth: the figures after each step, and with each step left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.errors import RecipeError
from pah_opt.pipeline import plan
from pah_opt.recipe import Recipe
from pah_opt.report.figures import figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.report import Report

FIGURES = ("top1_delta_pp", "size_x", "speedup_p50_x", "throughput_x", "macs_x")
"""What a step is credited with."""


@dataclass(frozen=True)
class Ablation:
    """The variants of one recipe.

    Args:
        recipe: the whole recipe.
        variants: it, its beginnings, and it without each step, as far as these can be run.
        refused: why a variant cannot be run, by its name.
    """

    recipe: Recipe
    variants: tuple[Recipe, ...]
    refused: dict[str, str]

    @classmethod
    def of(cls, recipe: Recipe, model: nn.Module, *, calibration: bool = True, training: bool = True) -> Ablation:
        """Make every variant of ``recipe`` that a plan accepts.

        Args:
            recipe: the whole recipe.
            model: what it is to be run on; looked at, not touched.
            calibration: whether calibration images will be there.
            training: whether training images will be there.

        Raises:
            RecipeError: the recipe itself cannot be run.
        """
        plan(model, recipe, calibration=calibration, training=training)
        tried = [(each, _problems(model, each, calibration, training)) for each in _variants(recipe)]
        runnable = tuple(variant for variant, problems in tried if not problems)
        return cls(recipe, (recipe, *runnable), {variant.name: problems for variant, problems in tried if problems})


def _problems(model: nn.Module, variant: Recipe, calibration: bool, training: bool) -> str:
    try:
        plan(model, variant, calibration=calibration, training=training)
    except RecipeError as error:
        return "; ".join(map(str, error.problems))
    return ""


def _variants(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the beginnings of a recipe and what is left without each step; none twice, none empty."""
    count = len(recipe.steps)
    if count < 2:
        return
    for end in range(1, count):
        yield _variant(recipe, after_name(recipe, end), range(end))
    for gone in range(count - 1):  # without the last step is the last beginning
        yield _variant(recipe, without_name(recipe, gone), [i for i in range(count) if i != gone])


def after_name(recipe: Recipe, steps: int) -> str:
    """Name the variant that ends after so many steps."""
    if steps == len(recipe.steps):
        return recipe.name
    return f"{recipe.name[:60]}.after-{steps}-{recipe.steps[steps - 1].use}"[:100]


def without_name(recipe: Recipe, index: int) -> str:
    """Name the variant without the step at a zero-based index."""
    if index == len(recipe.steps) - 1:
        return after_name(recipe, index)
    return f"{recipe.name[:60]}.without-{index + 1}-{recipe.steps[index].use}"[:100]


def _variant(recipe: Recipe, name: str, kept: range | list[int]) -> Recipe:
    return Recipe(name=name, seed=recipe.seed, steps=tuple(recipe.steps[i] for i in kept))


class Credit(NamedTuple):
    """What one step changed in one figure; None where a variant could not be run or measured.

    Args:
        step: such as ``2. torchao``.
        figure: name of the figure.
        added: figure after the step less (ratios: over) the figure before it.
        left_out: figure of the whole recipe less (ratios: over) the one without the step.
    """

    step: str
    figure: str
    added: float | None
    left_out: float | None


def attribution(report: Report, recipe: Recipe) -> list[Credit]:
    """Credit each step of a recipe with what it changed, in a report that holds its variants."""
    return [
        Credit(f"{index + 1}. {step.use}", name, *_credits(report, recipe, index, name))
        for index, step in enumerate(recipe.steps)
        for name in FIGURES
    ]


def _credits(report: Report, recipe: Recipe, index: int, name: str) -> tuple[float | None, float | None]:
    after = _figure(report, after_name(recipe, index + 1), name)
    before = _figure(report, after_name(recipe, index), name) if index else _nothing(name)
    whole = _figure(report, recipe.name, name)
    alone = len(recipe.steps) == 1
    without = _nothing(name) if alone else _figure(report, without_name(recipe, index), name)
    return _change(before, after, name), _change(without, whole, name)


def _nothing(name: str) -> float:
    """Return the figure of the dense model against itself."""
    return 1.0 if name.endswith("_x") else 0.0


def _change(before: float | None, after: float | None, name: str) -> float | None:
    if before is None or after is None:
        return None
    return after / before if name.endswith("_x") else after - before


def _figure(report: Report, model: str, name: str) -> float | None:
    found = next((each for each in report.models if each.id == model), None)
    return None if found is None else figure(name).find(found).value


def attribution_table(report: Report, recipe: Recipe) -> list[tuple[str, ...]]:
    """Return rows to print, headers first: for each step, what adding it did and what leaving it out undoes."""
    rows: list[tuple[str, ...]] = [("step", "", *FIGURES)]
    credited = attribution(report, recipe)
    for start in range(0, len(credited), len(FIGURES)):
        of_step = credited[start : start + len(FIGURES)]
        rows.append((of_step[0].step, "added", *(_written(credit.added, credit.figure) for credit in of_step)))
        rows.append(("", "left out", *(_written(credit.left_out, credit.figure) for credit in of_step)))
    return rows


def _written(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"x {value:.2f}" if name.endswith("_x") else f"{value:+.2f}"
