"""Several recipes on one dense model: each run apart, a failure reported beside the others' figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pah_opt.errors import PahOptError, RecipeError
from pah_opt.pipeline import apply
from pah_opt.progress import Progress
from pah_opt.report import compare
from pah_opt.workflow.ranks import wait_for_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.artifact import Artifact
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.recipe import Recipe
    from pah_opt.report import Report
    from pah_opt.workflow.sources import Source


@dataclass(frozen=True)
class Outcome:
    """What came of several recipes.

    Args:
        report: the dense model and every recipe that ran, measured side by side.
        artifacts: what each recipe that ran made, by recipe name.
        failures: why the others did not, by recipe name.
    """

    report: Report
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    failures: dict[str, PahOptError] = field(default_factory=dict)


def run_recipes(
    source: Source,
    recipes: Sequence[Recipe],
    *,
    settings: MeasureSettings | None = None,
    shared: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Outcome:
    """Run each recipe on the dense model, then measure all of them side by side.

    Args:
        source: the dense model and its images.
        recipes: what to run; their names must differ.
        settings: how thoroughly to measure.
        shared: share the test images among the processes of one launch, see :func:`pah_opt.compare`.
        progress: shows which recipe is running.
        **options: passed on to :func:`pah_opt.apply`.

    Raises:
        RecipeError: two recipes have one name.
        PahOptError: every recipe failed; the error of the first.
    """
    progress = progress or Progress()
    artifacts, failures = apply_recipes(source, recipes, progress=progress, **options)
    progress.message("measuring")
    models = {"dense": source.model, **artifacts}
    report = compare(
        models, source.data, settings=settings, weights_origin=source.weights_origin, shared=shared, progress=progress
    )
    return Outcome(report.model_copy(update={"notes": (*report.notes, *source.notes)}), artifacts, failures)


def apply_recipes(
    source: Source, recipes: Sequence[Recipe], *, progress: Progress | None = None, **options: Any
) -> tuple[dict[str, Artifact], dict[str, PahOptError]]:
    """Run each recipe on the dense model, and measure nothing.

    Under ``accelerate launch`` every process must call it; afterwards all of them are done.

    Args:
        source: the dense model and its images.
        recipes: what to run; their names must differ.
        progress: shows which recipe is running.
        **options: passed on to :func:`pah_opt.apply`.

    Returns:
        What each recipe that ran made, and why the others did not, by recipe name.

    Raises:
        RecipeError: two recipes have one name.
        PahOptError: every recipe failed; the error of the first.
    """
    _check_names(recipes)
    progress = progress or Progress()
    artifacts: dict[str, Artifact] = {}
    failures: dict[str, PahOptError] = {}
    options |= {"source": source.name, "weights_origin": source.weights_origin, "progress": progress}
    for recipe in recipes:
        progress.message(f"running {recipe.name}: {recipe.description or ', '.join(s.use for s in recipe.steps)}")
        try:
            artifacts[recipe.name] = apply(source.model, recipe, source.data, **options)
        except PahOptError as error:
            failures[recipe.name] = error
            progress.message(f"{recipe.name} failed: {error}")
    if failures and not artifacts:
        raise next(iter(failures.values()))
    wait_for_all()
    return artifacts, failures


def _check_names(recipes: Sequence[Recipe]) -> None:
    names = [recipe.name for recipe in recipes]
    doubled = sorted({name for name in names if names.count(name) > 1 or name == "dense"})
    if doubled:
        raise RecipeError(
            f"recipe names must differ, and 'dense' is the model as it was; rename {', '.join(map(repr, doubled))}"
        )
