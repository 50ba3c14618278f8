"""Run one runtime strategy the way the pipeline does: checked, on a copy, verified, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pah_opt
from pah_opt.models import find_adapter, logits_of
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.testing import tiny_images

Apply = Callable[..., Any]


@pytest.fixture
def logits() -> Callable[..., Tensor]:
    """Return the logits of two fixed images."""

    def of(model: nn.Module, image: int = 32) -> Tensor:
        with torch.inference_mode():
            return logits_of(model(tiny_images(image=image))).float()

    return of


@pytest.fixture
def prepared() -> Callable[[nn.Module], nn.Module]:
    """Prepare a model as the pipeline does before the first step."""
    return lambda model: find_adapter(model, pah_opt_model_adapters()).prepare(model)


@pytest.fixture
def apply() -> Apply:
    """Run a recipe of one step (or several) on a model; return the Artifact."""

    def run(model: nn.Module, *steps: pah_opt.Step | str, **parameters: Any) -> Any:
        made = [pah_opt.Step.of(step, **parameters) if isinstance(step, str) else step for step in steps]
        return pah_opt.apply(model, pah_opt.Recipe(steps=tuple(made)))

    return run


@pytest.fixture
def reloaded(tmp_path: Path) -> Callable[[Any], nn.Module]:
    """Save an Artifact, load it, and return the model."""

    def through_disk(artifact: Any) -> nn.Module:
        artifact.save(tmp_path / "artifact")
        return pah_opt.load(tmp_path / "artifact").model

    return through_disk
