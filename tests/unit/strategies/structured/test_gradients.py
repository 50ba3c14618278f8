"""Gradients are taken of copies of the images: the caller's own tensors stay as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.data import TensorSplit
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.splits import Batch
from pah_opt.strategies.structured.gradients import gate_gradients, output_sensitivities
from pah_opt.testing import tiny_images, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stored(TensorSplit):
    """Gives out the very tensors it holds."""

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        yield Batch(self.pixel_values, self.labels)


def test_the_callers_images_are_left_without_gradients() -> None:
    model = tiny_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    layout = adapter.layout(model)
    pixels = tiny_images(4, image=layout.image_size[0])
    names = [str(label) for label in range(layout.num_classes)]
    split = Stored(pixels, torch.zeros(4, dtype=torch.long), names)
    path = layout.blocks[0].mlp.fc2
    assert gate_gradients(model, adapter, layout, split, {path: 1})[path].abs().sum() > 0
    assert output_sensitivities(model, adapter, layout, split, [path])[path].outputs.sum() > 0
    assert not split.pixel_values.requires_grad
    assert split.pixel_values.grad is None
