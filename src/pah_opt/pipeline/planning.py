"""The dry run: a whole recipe on a copy without values, so that every mistake is found before anything is touched."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pah_opt.environment import Environment
from pah_opt.errors import PahOptError, Place, Problem, RecipeError
from pah_opt.models.state import state_tags
from pah_opt.models.supply import supply_problems
from pah_opt.optimizer import Context
from pah_opt.pipeline.copies import meta_copy
from pah_opt.pipeline.seeding import seeded, step_seed
from pah_opt.pipeline.subject import Subject, returned
from pah_opt.registry import CheckedRecipe, CheckedStep, Registry, default_registry, using_registry, validate
from pah_opt.report.figures import figure_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.measure.model import ModelFigures
    from pah_opt.recipe import Recipe
    from pah_opt.recipe.sources import RecipeSource


MANY = sys.maxsize
"""Images where it is not known yet how many there will be."""
META = "a step must also work on the meta device, where tensors have no values (context.planning)"


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan.

    Args:
        use: the Optimizer.
        config: its parameters with every default filled in, as JSON data.
        figures: what the model is predicted to be after it.
        notes: what the step says about itself on a dry run.
    """

    use: str
    config: dict[str, Any]
    figures: ModelFigures
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a recipe would do to a model, step by step; no weights were needed.

    Args:
        recipe: the recipe.
        adapter: name of the ModelAdapter that knows the model.
        before: the model as it is.
        steps: the prediction after each step.
        model: the model after the last step, on the ``meta`` device.
    """

    recipe: Recipe
    adapter: str
    before: ModelFigures
    steps: tuple[PlannedStep, ...]
    model: nn.Module | None = field(default=None, repr=False, compare=False)

    def to_data(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return {
            "recipe": self.recipe.to_data(),
            "adapter": self.adapter,
            "before": asdict(self.before),
            "steps": [
                {"use": s.use, "with": s.config, "after": asdict(s.figures), "notes": dict(s.notes)} for s in self.steps
            ],
        }


def plan(
    model: nn.Module,
    recipe: RecipeSource,
    *,
    calibration: bool = True,
    training: bool = True,
    environment: Environment | None = None,
    registry: Registry | None = None,
) -> Plan:
    """Check a recipe against a model and predict what each step would leave, without touching the model.

    The model may be on the ``meta`` device: no weights are needed.

    Args:
        model: the model, any device.
        recipe: what would be run: a Recipe, its data, the name of a preset, or the path or text of one in YAML or JSON.
        calibration: whether calibration images will be there.
        training: whether training images will be there.
        environment: the machine to plan for; this one by default.
        registry: the strategies to choose from; every installed one by default.

    Returns:
        The predicted figures after each step. Sizes and MACs are exact for steps whose effect on shapes does not
        depend on values; global pruning scopes are predicted with the same share in every block.

    Raises:
        RecipeError: with everything that is wrong, each with its place and its remedy.
        UnsupportedModelError: no ModelAdapter knows the model.
    """
    registry = registry or default_registry()
    environment = environment or Environment()
    subject = Subject.of(model, registry, meta_copy)
    checked = validate(
        registry.recipe(recipe),
        registry,
        environment=environment,
        calibration=calibration,
        training=training,
        initial_tags=state_tags(model),
        known_figures=figure_names(registry.metrics),
    )
    with using_registry(registry):
        return simulate(
            subject, checked, environment, calibration=MANY if calibration else 0, training=MANY if training else 0
        )


def simulate(
    subject: Subject, checked: CheckedRecipe, environment: Environment, *, calibration: int, training: int
) -> Plan:
    """Run every step of a checked recipe on a model without values.

    Args:
        subject: the model.
        checked: the recipe.
        environment: the machine.
        calibration: how many calibration images there will be.
        training: how many training images there will be.

    Raises:
        RecipeError: with everything that the steps find wrong for this model.
    """
    before = subject.figures()
    # Steps change the subject's model in place; those that train are compared with what it was.
    reference = meta_copy(subject.model) if any(step.needs.training for step in checked.steps) else None
    planned: list[PlannedStep] = []
    problems: list[Problem] = []
    for step in checked.steps:
        seed = step_seed(checked.recipe.seed, step.index, step.optimizer.name)
        context = Context(
            subject.adapter, environment, seed=seed, align=step.align, reference=reference, planning=True,
            planned_calibration=calibration if step.needs.observes else 0,
            planned_training=training if step.needs.training else 0,
        )  # fmt: skip
        trial = _Trial(step, context, checked.recipe.place("steps", step.index))
        after = trial.run(subject)
        problems += trial.problems
        if trial.raised is not None:  # what later steps say of a model that this one did not make is no help
            break
        if after is not None:
            subject, figures = after
            planned.append(PlannedStep(step.optimizer.name, _config_data(step), figures, context.achieved))
    if problems:
        message = f"recipe {checked.recipe.name!r} does not fit this {type(subject.model).__name__}"
        raise RecipeError(problems, message) from trial.raised
    return Plan(checked.recipe, subject.adapter.name, before, tuple(planned), subject.model)


def _config_data(step: CheckedStep) -> dict[str, Any]:
    data: dict[str, Any] = step.config.model_dump(mode="json")
    return data


@dataclass
class _Trial:
    """One step's dry run; what a plugin raises, whatever it is, becomes a problem of that step."""

    step: CheckedStep
    context: Context
    place: Place
    problems: list[Problem] = field(default_factory=list)
    raised: Exception | None = None

    def run(self, subject: Subject) -> tuple[Subject, ModelFigures] | None:
        """Return the model after the step and its figures, or None when something is wrong."""
        try:
            found = supply_problems(self.step.needs, self.context)
            found += self.step.optimizer.check(subject.model, self.step.config, self.context)
            self.problems += [Problem(text, self.place) for text in found]
            return None if found else self._apply(subject)
        except PahOptError as error:
            self.problems.append(Problem(str(error), self.place))
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything
            self.raised = error
            message = f"its dry run failed with {type(error).__name__}: {error}"
            self.problems.append(Problem(message, self.place, remedy=META if _is_of_meta(error) else None))
        return None

    def _apply(self, subject: Subject) -> tuple[Subject, ModelFigures]:
        with seeded(self.context.seed, subject.device):
            after = subject.having(returned(self.step.optimizer.apply(subject.model, self.step.config, self.context)))
        return after, after.figures()


def _is_of_meta(error: Exception) -> bool:
    """Tell whether an error may come from tensors without values."""
    return isinstance(error, NotImplementedError) or re.search(r"\bmeta\b", str(error), re.IGNORECASE) is not None
