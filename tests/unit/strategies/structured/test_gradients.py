"""Gradients are taken of copies of the images, the caller's own tensors stay as they were, and nothing is kept."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from pah_opt.data import TensorSplit
from pah_opt.errors import DataError
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.splits import Batch
from pah_opt.strategies.structured.gradients import gate_gradients, output_sensitivities
from pah_opt.testing import tiny_images, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pah_opt.layout import Layout, ModelAdapter


class Stored(TensorSplit):
    """Gives out the very tensors it holds."""

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        yield Batch(self.pixel_values, self.labels)


def tiny() -> tuple[nn.Module, ModelAdapter, Layout, Stored]:
    model = tiny_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    layout = adapter.layout(model)
    names = [str(label) for label in range(layout.num_classes)]
    pixels = tiny_images(4, image=layout.image_size[0])
    return model, adapter, layout, Stored(pixels, torch.zeros(4, dtype=torch.long), names)


def test_the_callers_images_are_left_without_gradients() -> None:
    model, adapter, layout, split = tiny()
    path = layout.blocks[0].mlp.fc2
    assert gate_gradients(model, adapter, layout, split, {path: 1})[path].abs().sum() > 0
    assert output_sensitivities(model, adapter, layout, split, [path])[path].outputs.sum() > 0
    assert not split.pixel_values.requires_grad
    assert split.pixel_values.grad is None


@pytest.mark.parametrize("take", [gate_gradients, output_sensitivities])
def test_activations_are_let_go(take: Callable[..., object]) -> None:
    """A hook that held its own tensor kept every batch's graph: gigabytes, until the system ended the process."""
    model, adapter, layout, split = tiny()
    seen: list[weakref.ref[Tensor]] = []
    for block in layout.blocks:
        hidden = model.get_submodule(block.mlp.fc2)
        hidden.register_forward_hook(lambda _, inputs, output: seen.extend(map(weakref.ref, (*inputs, output))))
    paths = [block.mlp.fc2 for block in layout.blocks]
    take(model, adapter, layout, split, dict.fromkeys(paths, 1) if take is gate_gradients else paths)
    gc.collect()
    assert seen
    assert [tensor() for tensor in seen if tensor() is not None] == []


@pytest.mark.parametrize("take", [gate_gradients, output_sensitivities])
def test_a_classifier_of_zeros_ranks_nothing_and_is_refused(take: Callable[..., object]) -> None:
    model, adapter, layout, split = tiny()
    nn.init.zeros_(model.classifier.weight)
    path = layout.blocks[0].mlp.fc2
    with pytest.raises(DataError, match="no gradient reaches the layers: the logits do not depend on them"):
        take(model, adapter, layout, split, {path: 1} if take is gate_gradients else [path])
