"""The contract of strategies as tests: subclass :class:`OptimizerContract` in a pytest file, and name the strategy."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import nn

from pah_opt.errors import PahOptError, RecipeError, UnsupportedModelError
from pah_opt.measure.tensors import storage_type
from pah_opt.optimizer import Effect
from pah_opt.pipeline.copies import meta_copy
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import recipe_schema
from pah_opt.registry.parameter_rows import describe_parameters
from pah_opt.testing.harness import Harness
from pah_opt.testing.models import CLASSES, TINY_MODELS, tiny_images
from pah_opt.testing.partners import pair_mistake, partners_of
from pah_opt.testing.states import changes, different_tensors, frozen_state, leftovers, tensor_bytes_alive, tensors_of
from pah_opt.testing.strangers import STRANGERS

BATCHES = (1, 3, 5)
TOLERANCE = 0.05
"""Largest difference of a logit between an image alone and in a batch, as a share of the largest logit: roundings to
int8 may fall to their other side, and nothing else may happen."""
MOST_RUNS = 3
"""Runs after which memory that still grows is no warm-up: one is enough where nothing grows."""
PLAN_TOLERANCE = 0.05


class OptimizerContract(Harness):
    """Everything that a strategy promises by being one, as test methods.

    ::

        from pah_opt.testing import OptimizerContract


        class TestMyPruning(OptimizerContract):
            optimizer = "my-pruning"
            parameters = {"ratio": 0.5}

    Class attributes:
        optimizer: the strategy's name.
        parameters: with which it does something to a tiny model of two blocks, width 32 and 17 tokens.
        mends: steps that it repairs, for a strategy that leaves an undamaged model as it is.
        compatible_layouts: kinds of models that it works on, keys of :data:`pah_opt.testing.TINY_MODELS`; the others
            it refuses. All by default.
        partners: strategies to be combined with, and their parameters; every built-in one by default.
        plugin: the module or object that brings the strategy, where it is not installed.
    """

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make one test per layout and per partner."""
        if "layout" in metafunc.fixturenames:
            metafunc.parametrize("layout", self.compatible_layouts)
        if "partner" in metafunc.fixturenames:
            metafunc.parametrize("partner", partners_of(self.trial.registry, self.partners), ids=lambda step: step.use)

    # What it is, before anything runs.

    def test_says_what_it_is(self) -> None:
        """Summary, references and docstrings are what ``pah-opt list`` and the generated reference show."""
        made = self.trial.optimizer
        self.require(len(made.summary.split()) >= 3, "write a summary of one sentence")
        self.require(bool(made.references), "name in `references` the paper or page that the method comes from")
        self.require(_documented(type(made)), "give the class a docstring: what it does, and what it costs")
        self.require(_documented(made.config_type), "give the config class a docstring")

    def test_documents_every_parameter(self) -> None:
        """Each field of the config has a docstring and a default or is required, and a type in words."""
        for parameter in describe_parameters(self.trial.optimizer.config_type):
            said = f"parameter {parameter['name']!r}"
            self.require(bool(parameter["description"]), f"{said} has no docstring; write one below the field")
            self.require(parameter["type"] not in ("", "any"), f"{said} has no type; annotate it with what it takes")

    def test_config_survives_files(self) -> None:
        """A recipe with it reads back equal from YAML and JSON, and so does the config; the schema knows it."""
        made, recipe = self.trial.optimizer, self.trial.recipe()
        for text in (recipe.to_yaml(), recipe.to_json()):
            self.require(Recipe.from_yaml(text) == recipe, "its parameters do not survive a recipe file")
        config = self.config()
        again = made.config_type.model_validate_json(config.model_dump_json())
        self.require(again == config, "its config does not survive JSON: use types that pydantic writes and reads back")
        known = recipe_schema(self.trial.registry)["$defs"][made.name].get("properties", {})
        self.require(set(known) >= set(self.parameters), "the JSON schema does not list its parameters")

    def test_names_a_wrong_parameter(self) -> None:
        """A misspelt parameter is refused before anything runs, with the strategy and the parameter named."""
        wrong = Step.of(self.optimizer, **{**self.parameters, "no_such_parameter": 1})
        said = self.refusal(lambda: self.trial.apply(self.model(), Recipe(steps=(wrong,))), RecipeError)
        self.require("no_such_parameter" in said and self.optimizer in said, f"the refusal does not name it: {said}")

    def test_says_what_it_needs(self) -> None:
        """Without any images it works, or is refused before anything runs, with the strategy and its need named."""
        self.available()
        needs = self.trial.optimizer.needs(self.config())
        wanted = ["training images"] * needs.training + ["calibration images"] * (needs.calibration or needs.labels)
        run = partial(self.trial.apply, self.model(), images=False)
        if wanted:
            said = self.refusal(run, RecipeError)
            missing = [word for word in (self.optimizer, *wanted) if word not in said]
            self.require(not missing, f"the refusal does not name {_some(missing)}: {said}")
            return
        try:
            run()
        except PahOptError as error:
            self.fail(f"it fails where there are no images ({error}); say in needs() what it needs")

    # What it does.

    def test_plans_without_weights(self) -> None:
        """The dry run works on the meta device, touches nothing, and predicts how many parameters stay."""
        empty = meta_copy(self.model())
        before = [(name, tuple(tensor.shape)) for name, tensor in tensors_of(empty)]
        try:
            planned = self.trial.plan(empty)
        except PahOptError as error:
            self.fail(f"its dry run fails: {error}; apply() must work on the meta device (context.planning)")
        self.require(
            [(n, tuple(t.shape)) for n, t in tensors_of(empty)] == before, "a plan changed the model it planned"
        )
        predicted, real = planned.steps[-1].figures.params, self.made().steps[-1].after["params"]
        self.require(
            abs(predicted - real) <= PLAN_TOLERANCE * real,
            f"its plan predicts {predicted:,} parameters and the run leaves {real:,}; change the same shapes in both",
        )

    def test_leaves_the_callers_model_alone(self) -> None:
        """Tensors, config, mode, requires_grad, hooks and methods of the caller's model stay as they are."""
        self.available()
        model = self.model().train()
        model.get_submodule(self.trial.adapter(model).layout(model).patch_embedding).requires_grad_(requires_grad=False)
        before = frozen_state(model)
        self.trial.apply(model)
        found = changes(before, frozen_state(model))
        self.require(
            not found, f"it changed the caller's model: {_some(found)}; work on `model` as apply() gets it only"
        )

    def test_keeps_its_promise(self) -> None:
        """``expects()`` promises something that the pipeline found after the step; training changes weights."""
        made = self.trial.optimizer
        trains = made.goal == "accuracy"
        promises = made.expects(self.config()) != Effect()
        self.require(promises or trains, "expects() promises nothing; say what changes (new_type for runtimes)")
        after = self.made().model
        if trains and not promises:
            before = self.model()
            if self.mends:
                after = self.trial.apply(before, self.trial.recipe(before=self.mends)).model
                before = self.trial.apply(before, Recipe(name="contract", steps=self.mends)).model
            found = different_tensors(self.trial.adapter(before).prepare(before), after)
            self.require(bool(found), "it is for accuracy and changes no weight")

    def test_same_seed_gives_the_same_model(self) -> None:
        """Two runs leave equal tensors and logits, bit for bit, whatever the global generator was."""
        torch.manual_seed(1)
        first = self.made()
        torch.manual_seed(2)
        second = self.trial.apply(self.model()).model
        found = different_tensors(first.model, second)
        self.require(not found, f"two runs differ in {_some(found)}; seed what is random with context.seed")
        self.same_logits(first.model, second, "two runs give other logits; seed what is random with context.seed")

    def test_keeps_types_and_device(self) -> None:
        """Storage types stay or become the announced one, in float32 and bfloat16; so does the device, a GPU too.

        A type is announced by ``expects().linear_dtype`` or a ``dtype:`` tag. A strategy that cannot work on such a
        model refuses it by name.
        """
        self._keeps_types_and_device(self.model(), self.made().model)
        others = [self.model().to(torch.bfloat16)]
        if torch.cuda.is_available():
            others.append(self.model().to("cuda"))
        for model in others:
            made = self._made_or_refused(model)
            if made is not None:
                self._keeps_types_and_device(model, made)

    def _made_or_refused(self, model: nn.Module) -> nn.Module | None:
        try:
            return self.trial.apply(model).model
        except (RecipeError, UnsupportedModelError) as error:
            self.require(self.optimizer in str(error), f"the refusal does not name it: {error}")
        except PahOptError as error:
            self.fail(f"it was planned for {_kind_of(model)} and then failed ({error}); refuse it in check()")
        return None

    def _keeps_types_and_device(self, model: nn.Module, made: nn.Module) -> None:
        optimizer, config = self.trial.optimizer, self.config()
        announced = {tag.removeprefix("dtype:") for tag in optimizer.tags(config).provides if tag.startswith("dtype:")}
        announced.add(optimizer.expects(config).linear_dtype or "")
        kind, device = _kind_of(model), next(model.parameters()).device.type
        before = dict(tensors_of(self.trial.adapter(model).prepare(model)))
        for name, tensor in tensors_of(made):
            self.require(tensor.device.type == device, f"it moved {name} of {kind} to {tensor.device}")
            found = storage_type(tensor)
            kept = name not in before or found == storage_type(before[name]) or found in announced
            self.require(kept, f"it made {name} of {kind} {found} and does not announce it: see Effect.linear_dtype")

    def test_leaves_nothing_behind(self) -> None:
        """No hooks, gradients or masks stay on the model, no tensors in memory, no settings of torch changed."""
        found = leftovers(self.made().model, self.model())
        self.require(
            not found, f"it leaves {_some(found)}; remove hooks in `finally`, set gradients to None, fold masks"
        )
        found = [f"{name} at {now}" for name, now in self.trial.disturbed.items()]
        self.require(not found, f"it leaves {_some(found)} for the whole process; set it back in `finally`")
        alive = [tensor_bytes_alive()]
        for _ in range(MOST_RUNS):
            self.trial.apply(self.model())
            alive.append(tensor_bytes_alive())
            if alive[-1] <= alive[-2]:
                return
        self.fail(
            f"every run leaves tensors in memory ({alive[-1] - alive[-2]:,} bytes by the last); keep none in hooks and "
            "caches: a hook that holds the tensor it hangs on is never collected"
        )

    def test_takes_any_batch(self) -> None:
        """One image and odd batches give finite logits, and an image's logits do not depend on its neighbours."""
        model = self.made().model
        images = tiny_images(max(BATCHES), image=self.image_size(model))
        alone = self.trial.logits(model, images[:1])
        for count in BATCHES:
            try:
                logits = self.trial.logits(model, images[:count])
            except Exception as error:  # noqa: BLE001  # whatever its modules raise
                self.fail(f"its model cannot take {count} images ({type(error).__name__}: {error})")
            self.require(
                tuple(logits.shape) == (count, CLASSES), f"{count} images give logits of {tuple(logits.shape)}"
            )
            self.require(bool(torch.isfinite(logits).all()), f"logits of {count} images are not finite")
            apart = float((logits[:1] - alone).abs().max() / alone.abs().max())
            self.require(
                apart <= TOLERANCE, f"an image's logits change by {apart:.1%} with {count - 1} others beside it"
            )

    def test_refuses_models_it_does_not_know(self) -> None:
        """Networks that are no Vision Transformers are refused with UnsupportedModelError, which names their type."""
        for stranger in STRANGERS:
            model = stranger()
            said = self.refusal(partial(self.trial.apply, model), UnsupportedModelError)
            self.require(type(model).__name__ in said, f"the refusal does not name {type(model).__name__}: {said}")

    def test_refuses_the_other_layouts(self) -> None:
        """Kinds of models that ``compatible_layouts`` leaves out are refused before anything runs."""
        for layout in [name for name in TINY_MODELS if name not in self.compatible_layouts]:
            self.refusal(partial(self.trial.apply, self.make_model(layout)), PahOptError, f" of {layout}")

    # What it does on every kind of model, and beside every other strategy.

    def test_works_on_every_layout(self, layout: str) -> None:
        """The step runs, attributes say what the tensors are, and a saved artifact answers bit for bit as before."""
        made = self.made(layout)
        false = self.trial.adapter(made.model).disagreements(made.model)
        self.require(not false, f"attributes are no longer true: {_some(false)}; call context.adapter.sync(model)")
        try:
            again = self.trial.reloaded(made)
        except PahOptError as error:
            self.fail(f"it cannot be saved and loaded: {error}; see Optimizer.state() and restore()")
        self.same_logits(made.model, again, "a loaded artifact gives other logits; see Optimizer.state() and restore()")

    def test_goes_with_other_strategies(self, partner: Step) -> None:
        """In both orders: the two work together, or the recipe is refused before anything runs."""
        self.available()
        for first, second in ((partner, self.trial.step), (self.trial.step, partner)):
            mistake = pair_mistake(self.trial, self.model(), first, second)
            self.require(mistake is None, mistake or "")


def _kind_of(model: nn.Module) -> str:
    parameter = next(model.parameters())
    return f"a model in {storage_type(parameter)} on {parameter.device.type}"


def _documented(kind: type) -> bool:
    own: str = vars(kind).get("__doc__") or ""
    return len(inspect.cleandoc(own).split()) >= 3


def _some(found: list[str]) -> str:
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
