"""Several recipes on one dense model: each run apart, a failure reported beside the others' figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pah_opt.errors import PahOptError, RecipeError
from pah_opt.pipeline import apply
from pah_opt.progress import Progress
from pah_opt.report import compare
from pah_opt.workflow.ranks import is_alone, wait_for_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        files: what was written of it, once it was: names in the folder of results.
        earlier: artifacts in that folder that an earlier run left there.
    """

    report: Report
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    failures: dict[str, PahOptError] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


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

    After ctrl-C the recipes that are done are measured, and the report says which were not run; a second ctrl-C ends
    that too. Processes of one launch stop at once: each may be somewhere else.

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
        KeyboardInterrupt: no recipe was done before ctrl-C.
    """
    progress = progress or Progress()
    applying = _Applying(source, recipes, progress, options)
    try:
        applying.everything()
    except KeyboardInterrupt:
        if not applying.artifacts or not is_alone():
            raise
        progress.message("stopped; measuring what is done (ctrl-C again to leave it)")
    progress.message("measuring")
    models = {"dense": source.model, **applying.artifacts}
    report = compare(
        models, source.data, settings=settings, weights_origin=source.weights_origin, shared=shared, progress=progress
    )
    notes = (*report.notes, *applying.notes(), *source.notes)
    whole = report.complete and not applying.left
    return Outcome(
        report.model_copy(update={"notes": notes, "complete": whole}), applying.artifacts, applying.failures
    )  # fmt: skip


class _Applying:
    """Recipes that run one after the other; what is done stays when one is interrupted.

    Args:
        source: the dense model and its images.
        recipes: what to run.
        progress: shows which recipe is running.
        options: of :func:`pah_opt.apply`.

    Raises:
        RecipeError: two recipes have one name.
    """

    def __init__(
        self, source: Source, recipes: Sequence[Recipe], progress: Progress, options: Mapping[str, Any]
    ) -> None:
        _check_names(recipes)
        self.source, self.progress = source, progress
        self.options = {
            **options, "source": source.name, "weights_origin": source.weights_origin, "progress": progress
        }  # fmt: skip
        self.left = list(recipes)
        self.artifacts: dict[str, Artifact] = {}
        self.failures: dict[str, PahOptError] = {}

    def everything(self) -> None:
        """Run them.

        Raises:
            PahOptError: every recipe failed; the error of the first.
        """
        while self.left:
            self._run(self.left[0])
            del self.left[0]
        if self.failures and not self.artifacts:
            raise next(iter(self.failures.values()))
        wait_for_all()

    def _run(self, recipe: Recipe) -> None:
        about = recipe.description or ", ".join(step.use for step in recipe.steps)
        self.progress.message(f"running {recipe.name}: {about}")
        try:
            self.artifacts[recipe.name] = apply(self.source.model, recipe, self.source.data, **self.options)
        except PahOptError as error:
            self.failures[recipe.name] = error
            self.progress.message(f"{recipe.name} failed: {error}")

    def notes(self) -> list[str]:
        """Say which recipes were not run, after ctrl-C."""
        return [f"interrupted: {', '.join(recipe.name for recipe in self.left)} not run"] if self.left else []


def _check_names(recipes: Sequence[Recipe]) -> None:
    names = [recipe.name for recipe in recipes]
    doubled = sorted({name for name in names if names.count(name) > 1 or name == "dense"})
    if doubled:
        raise RecipeError(
            f"recipe names must differ, and 'dense' is the model as it was; rename {', '.join(map(repr, doubled))}"
        )
