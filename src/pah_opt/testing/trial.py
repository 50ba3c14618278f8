"""Run one strategy on tiny models the way the pipeline does, for the contract: planned, applied, saved, loaded."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.artifact import load
from pah_opt.artifact.saving import save
from pah_opt.data.splits import TensorSplit
from pah_opt.models import find_adapter
from pah_opt.models.quiet import quiet_imports
from pah_opt.pipeline import apply, plan
from pah_opt.plugins import load_plugins
from pah_opt.progress import Progress
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import Registry, default_registry
from pah_opt.splits import Data
from pah_opt.testing.models import CLASSES, IMAGE, tiny_images
from pah_opt.testing.states import process_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.artifact import Artifact
    from pah_opt.layout import ModelAdapter
    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.pipeline import Plan

CALIBRATION_IMAGES = 16


def tiny_data(*, image: int = IMAGE, train: int = 64, test: int = 20, classes: int = CLASSES, seed: int = 0) -> Data:
    """Return random images with random labels, every class among them, for training, calibration and tests.

    Args:
        image: height and width in pixels.
        train: training images.
        test: test images.
        classes: how many classes there are.
        seed: of the pixels.
    """
    names = [f"class {index}" for index in range(classes)]
    splits = [
        TensorSplit(tiny_images(count, image=image, seed=seed + shift), torch.arange(count) % classes, names, name)
        for shift, (count, name) in enumerate(((test, "random:test"), (train, "random:train")))
    ]
    return Data(*splits)


class Trial:
    """One strategy with one set of parameters.

    Args:
        optimizer: its name.
        parameters: as a recipe gives them.
        plugin: a module or object that brings it, for one that is not installed.
    """

    def __init__(self, optimizer: str, parameters: Mapping[str, Any], plugin: object | None = None) -> None:
        self.name = optimizer
        self.step = Step.of(optimizer, **parameters)
        self._plugin = plugin
        self.disturbed: dict[str, object] = {}
        """Settings of the whole process that a run did not leave as they were, and what it left."""

    @cached_property
    def registry(self) -> Registry:
        """Everything installed, and the plugin under test."""
        if self._plugin is None:
            return default_registry()
        return Registry.of(load_plugins(extra={"plugin under test": self._plugin}), strict=True)

    @property
    def optimizer(self) -> AnyOptimizer:
        """The strategy."""
        return self.registry.get(self.name).optimizer

    @cached_property
    def data(self) -> Data:
        """Images for calibration, training and tests."""
        return tiny_data()

    def recipe(self, before: tuple[Step, ...] = (), after: tuple[Step, ...] = ()) -> Recipe:
        """Return a recipe with this strategy among other steps."""
        return Recipe(name="contract", steps=(*before, self.step, *after))

    def plan(self, model: nn.Module) -> Plan:
        """Plan this strategy alone."""
        with quiet_imports():
            return plan(model, self.recipe(), registry=self.registry)

    def apply(self, model: nn.Module, recipe: Recipe | None = None, *, images: bool = True) -> Artifact:
        """Run it on a copy of ``model``, with images for calibration and training or without."""
        data = self.data if images else None
        before = process_state()
        try:
            with quiet_imports():
                return apply(
                    model, recipe or self.recipe(), data, registry=self.registry, on_collapse="ignore",
                    calibration_images=CALIBRATION_IMAGES, progress=Progress(),
                )  # fmt: skip
        finally:
            self.disturbed |= {name: now for name, now in process_state().items() if now != before[name]}

    def adapter(self, model: nn.Module) -> ModelAdapter:
        """Return the adapter that knows ``model``."""
        return find_adapter(model, self.registry.adapters)

    def reloaded(self, artifact: Artifact) -> nn.Module:
        """Save an artifact, load it, and return the model."""
        with TemporaryDirectory() as folder, quiet_imports():
            where = save(artifact, Path(folder, "artifact"), registry=self.registry)
            return load(where, registry=self.registry).model

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits of ``images``, float32 on the CPU."""
        adapter = self.adapter(model)
        device = next(model.parameters()).device
        with torch.inference_mode():
            return adapter.logits(model(images.to(device))).float().cpu()
