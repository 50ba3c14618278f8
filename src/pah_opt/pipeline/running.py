"""Run a recipe: plan it whole, then one step at a time on a private copy, each step's effect verified."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from pah_opt.artifact import Artifact, StepRecord
from pah_opt.environment import Environment
from pah_opt.errors import PahOptError, Problem, RecipeError, StepFailedError, UnsupportedModelError
from pah_opt.models.state import state_tags
from pah_opt.optimizer import Context
from pah_opt.pipeline.collapse import CollapseCheck, OnCollapse
from pah_opt.pipeline.copies import meta_copy, private_copy
from pah_opt.pipeline.inputs import Inputs
from pah_opt.pipeline.planning import simulate
from pah_opt.pipeline.seeding import seeded, step_seed
from pah_opt.pipeline.subject import Subject, returned
from pah_opt.pipeline.verify import Snapshot, Verifier, verify_attributes
from pah_opt.progress import Progress, default_progress
from pah_opt.registry import CheckedRecipe, CheckedStep, Registry, default_registry, using_registry, validate
from pah_opt.report.figures import figure_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pah_opt.artifact import WeightsOrigin
    from pah_opt.pipeline.planning import Plan
    from pah_opt.recipe.sources import RecipeSource

T = TypeVar("T")


@torch.inference_mode(mode=False)  # a caller's inference mode would forbid gradients and changes in place
def apply(
    model: nn.Module,
    recipe: RecipeSource,
    data: Any = None,
    *,
    inplace: bool = False,
    on_collapse: OnCollapse = "error",
    calibration_images: int = 256,
    processor: Any = None,
    registry: Registry | None = None,
    environment: Environment | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    source: str | None = None,
    weights_origin: WeightsOrigin = "unknown",
) -> Artifact:
    """Run ``recipe`` on a copy of ``model`` and return the result with how it was made.

    Everything that can be checked is checked before the first step. After each step its promised effect, its
    attributes and, where labelled images are at hand, its accuracy are verified.

    Args:
        model: any model a ModelAdapter knows; left untouched unless ``inplace``.
        recipe: what to do: a Recipe, its data, the name of a preset, or the path or text of one in YAML or JSON.
        data: images for calibration, training and the collapse check: a :class:`~pah_opt.splits.Data`, a Split, or
            ``(pixel_values, labels)`` batches as :func:`pah_opt.data.as_data` takes them. Test images are never
            calibrated or trained on.
        inplace: work on ``model`` itself, which saves the copy; after an error it may be half changed.
        on_collapse: what to do when the model is at chance after a step: ``error``, ``warn`` or ``ignore``.
        calibration_images: how many training images calibrating steps observe.
        processor: the model's transformers image processor, saved with the result for its input size; by default the
            one that ``data`` was preprocessed with. Images that are tensors carry none.
        registry: the strategies to choose from; every installed one by default.
        environment: the machine; this one by default.
        progress: shows progress; by default bars on a terminal, nothing elsewhere.
        on_plan: is given the plan before the first step; what it raises ends the run, with nothing touched.
        source: hub name or path of ``model``, to be kept with the result.
        weights_origin: where the weights came from, kept with the result: a :class:`~pah_opt.models.LoadedModel` has
            it. A model at chance before any step is refused with ``pretrained`` and ``fine-tuned``, taken with
            ``random``, and warned of with ``unknown``.

    Returns:
        The Artifact: the optimized model, and per step what was requested, achieved and measured.

    Raises:
        RecipeError: the recipe is wrong or does not fit; nothing was run.
        UnsupportedModelError: no ModelAdapter knows the model, or it is in no state to be worked on.
        DataError: the images cannot be used or do not fit the model.
        StepFailedError: a step raised, had no effect, or brought the model to chance.
    """
    registry = registry or default_registry()
    recipe = registry.recipe(recipe)
    environment = environment or Environment()
    inputs = Inputs.of(data, calibration_images=calibration_images, seed=recipe.seed, processor=processor)
    dry = Subject.of(model, registry, meta_copy)
    _check_values(model)
    inputs.check(dry)
    checked = validate(
        recipe,
        registry,
        environment=environment,
        calibration=inputs.calibration is not None,
        training=inputs.training is not None,
        initial_tags=state_tags(model),
        known_figures=figure_names(registry.metrics),
    )
    _check_device(model, checked)
    with using_registry(registry):
        planned = simulate(
            dry, checked, environment, calibration=len(inputs.calibration or ()), training=len(inputs.training or ())
        )
    if on_plan is not None:
        on_plan(planned)
    subject = Subject.of(model, registry, (lambda m: m) if inplace else private_copy)
    subject.check_input_type()
    collapse = CollapseCheck.for_model(subject, inputs.held_out, on_collapse, weights_origin)
    reference = _reference(model, checked, shared=inplace)
    runner = _Runner(checked, environment, inputs, collapse, reference, progress or default_progress())
    with using_registry(registry):
        return replace(runner.run(subject), source=source, weights_origin=weights_origin)


def _check_values(model: nn.Module) -> None:
    """Find a model that was never given its weights, or whose weights may not be changed.

    Raises:
        UnsupportedModelError: it is on the ``meta`` device, or was made in torch's inference mode.
    """
    if next(model.parameters()).device.type == "meta":
        raise UnsupportedModelError(
            f"{type(model).__name__} is on the meta device and has no values; load its weights, or use plan, which "
            "needs none"
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise UnsupportedModelError(
            f"{type(model).__name__} was made under torch.inference_mode(), so that its weights can be neither trained "
            "nor changed in place; make or load it outside, or pass a copy.deepcopy made outside"
        )


def _check_device(model: nn.Module, checked: CheckedRecipe) -> None:
    """Find steps that run on a GPU while the model is elsewhere: that there is a GPU was asked before.

    Raises:
        RecipeError: names each such step.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        return
    problems = [
        Problem(
            f"needs the model on a CUDA device, and it is on {device}",
            checked.recipe.place("steps", step.index),
            remedy='move it first: model.to("cuda") in Python, --device cuda on the command line',
        )
        for step in checked.steps
        if step.needs.cuda or step.needs.capability
    ]
    if problems:
        raise RecipeError(problems, f"recipe {checked.recipe.name!r} cannot be run")


def _reference(model: nn.Module, checked: CheckedRecipe, *, shared: bool) -> nn.Module | None:
    """Return the dense model for training steps to learn from: the caller's own when that is safe, else a copy."""
    if not any(step.needs.training for step in checked.steps):
        return None
    return private_copy(model).eval() if shared or model.training else model


def _asked(step: CheckedStep, call: Callable[[], T]) -> T:
    """Call what a plugin made for a step; what that raises, whatever it is, becomes the step's failure.

    Raises:
        StepFailedError: names the step, and is chained to what was raised.
    """
    try:
        return call()
    except PahOptError:
        raise
    except Exception as error:
        raise StepFailedError(step.index, step.optimizer.name, f"{type(error).__name__}: {error}") from error


@dataclass
class _Runner:
    """Runs the steps of a checked recipe; ``seen`` is the model as it was after the last one."""

    checked: CheckedRecipe
    environment: Environment
    inputs: Inputs
    collapse: CollapseCheck
    reference: nn.Module | None
    progress: Progress
    seen: Snapshot | None = None

    def run(self, subject: Subject) -> Artifact:
        records: list[StepRecord] = []
        tags = self.checked.initial_tags
        for step in self.progress.track(self.checked.steps, self.checked.recipe.name, total=len(self.checked.steps)):
            subject, record = self._step(subject, step)
            records.append(record)
            tags = (tags - step.tags.removes) | step.tags.provides
        return Artifact(
            model=subject.model,
            recipe=self.checked.recipe,
            steps=tuple(records),
            adapter=subject.adapter.name,
            processor=self.inputs.processor_at(subject.layout.image_size),
            tags=tags,
            class_names=self.inputs.class_names,
        )

    def _step(self, subject: Subject, step: CheckedStep) -> tuple[Subject, StepRecord]:
        index, optimizer, config = step.index, step.optimizer, step.config
        before = self.seen or self._snapshot(subject)
        context = self._context(subject, step)
        started = time.perf_counter()
        with seeded(context.seed, subject.device):
            subject = subject.having(_asked(step, lambda: returned(optimizer.apply(subject.model, config, context))))
        seconds = time.perf_counter() - started
        verify_attributes(index, optimizer.name, subject.adapter, subject.model)
        after = self.seen = self._left_by(step, subject)
        Verifier(index, optimizer.name, step.promises, context.achieved).verify(before, after)
        accuracy = self.collapse.after_step(index, optimizer.name, subject)
        return subject, StepRecord(
            use=optimizer.name,
            config=config.model_dump(mode="json"),
            achieved=dict(context.achieved),
            before=asdict(before.figures),
            after={**asdict(after.figures), **accuracy},
            seconds=seconds,
            state=_asked(step, lambda: optimizer.state(subject.model, config)),
        )

    def _context(self, subject: Subject, step: CheckedStep) -> Context:
        size = subject.layout.image_size
        return Context(
            subject.adapter,
            self.environment,
            seed=step_seed(self.checked.recipe.seed, step.index, step.optimizer.name),
            align=step.align,
            calibration=self.inputs.calibration_at(size) if step.needs.observes else None,
            training=self.inputs.training_at(size) if step.needs.training else None,
            reference=self.reference,
            progress=self.progress,
        )

    def _left_by(self, step: CheckedStep, subject: Subject) -> Snapshot:
        try:
            return self._snapshot(subject)
        except Exception as error:
            message = f"the model that it left cannot be run: {error}"
            raise StepFailedError(step.index, step.optimizer.name, message) from error

    def _snapshot(self, subject: Subject) -> Snapshot:
        example = subject.example(self.checked.recipe.seed)
        return Snapshot.of(subject.model, subject.adapter, subject.figures(), example)
