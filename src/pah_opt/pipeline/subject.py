"""What a recipe is run on: the model, the adapter that knows it, and the images that steps may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.measure.model import ModelFigures, model_figures
from pah_opt.models.finding import find_adapter
from pah_opt.models.state import model_problems
from pah_opt.pipeline.verify import example_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.registry import Registry

EXAMPLE_BATCH = 2
"""Images in the fixed input on which logits are compared before and after a step."""


def returned(found: object) -> nn.Module:
    """Return what a step's ``apply`` gave back, in ``eval`` mode.

    Raises:
        TypeError: it is no model; forgetting ``return model`` is the first mistake of most plugins.
    """
    if isinstance(found, nn.Module):
        return found.eval()
    raise TypeError(f"apply returned {found!r:.80}; it must return the model: return model")


@dataclass(frozen=True)
class Subject:
    """A model as the pipeline sees it.

    Args:
        model: in ``eval`` mode.
        adapter: knows the model's family.
    """

    model: nn.Module
    adapter: ModelAdapter

    @classmethod
    def of(cls, model: nn.Module, registry: Registry, copy: Callable[[nn.Module], nn.Module]) -> Subject:
        """Find the adapter of ``model`` and prepare a copy of it.

        Raises:
            UnsupportedModelError: the family is unknown, or the model is in no state to be worked on.
        """
        problems = model_problems(model)
        if problems:
            raise UnsupportedModelError(f"{type(model).__name__} cannot be worked on: " + "; ".join(problems))
        adapter = find_adapter(model, registry.adapters)
        return cls(adapter.prepare(copy(model)).eval(), adapter)

    def having(self, model: nn.Module) -> Subject:
        """Return the same subject with another model."""
        return Subject(model, self.adapter)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    @property
    def layout(self) -> Layout:
        """The model's layout as its tensors now are."""
        return self.adapter.layout(self.model)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's input."""
        layout = self.layout
        return (layout.in_channels, *layout.image_size)

    def figures(self) -> ModelFigures:
        """Count parameters, bytes and MACs for one image."""
        return model_figures(self.model, adapter=self.adapter, example_shape=(1, *self.input_shape))

    def example(self, seed: int) -> Tensor:
        """Return a fixed random input for the model, ``(2, channels, height, width)``, on its device."""
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn((EXAMPLE_BATCH, *self.input_shape), generator=generator, dtype=torch.float32, device="cpu")
        return values.to(self.device)

    def check_input_type(self) -> None:
        """Check that the model takes float32 pixels, which every image in this library is stored as.

        Hugging Face models cast their pixels themselves, and so does what the step ``cast`` leaves.

        Raises:
            UnsupportedModelError: it takes those of its own type only.
        """
        kind = next(self.model.parameters()).dtype
        if kind == torch.float32:
            return
        try:
            example_logits(self.model, self.adapter, self.example(0))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            name = str(kind).removeprefix("torch.")
            raise UnsupportedModelError(
                f"{type(self.model).__name__} is in {name} and does not run on float32 images "
                f"({str(error).partition(chr(10))[0]}); use model.float(), and add cast as the last step of the recipe"
            ) from error
