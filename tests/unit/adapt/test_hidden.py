from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pah_opt import Split
from pah_opt.adapt.hidden import HiddenSplit, inputs_of, starting_at
from pah_opt.data import TensorSplit
from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import TINY_MODELS, tiny_images


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_running_from_a_block_gives_the_logits_of_the_whole_model(kind: str) -> None:
    model = TINY_MODELS[kind](blocks=3)
    adapter = find_adapter(model, default_registry().adapters)
    model = adapter.prepare(model).eval()
    layout = adapter.layout(model)
    pixels = tiny_images(4)
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    with torch.no_grad():
        expected = adapter.logits(model(pixels))
        for first in (0, 2):
            hidden = inputs_of(model.get_submodule(layout.blocks[first].path), model, pixels)
            with starting_at(model, layout, first):
                torch.testing.assert_close(adapter.logits(model(hidden)), expected)
        torch.testing.assert_close(adapter.logits(model(pixels)), expected)
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_gradients_stop_at_the_hidden_states() -> None:
    model = TINY_MODELS["hf-vit"]()
    adapter = find_adapter(model, default_registry().adapters)
    layout = adapter.layout(model)
    with starting_at(model, layout, 1):
        adapter.logits(model(torch.randn(2, 17, 32))).sum().backward()
    assert model.get_submodule("vit.layers.1.mlp.fc1").get_parameter("weight").grad is not None
    assert model.get_submodule("vit.layers.0.mlp.fc1").get_parameter("weight").grad is None


def test_block_that_does_not_run_is_named() -> None:
    model = TINY_MODELS["hf-vit"]()
    with pytest.raises(UnsupportedModelError, match="a Linear that should hold hidden states did not run"):
        inputs_of(torch.nn.Linear(1, 1), model, tiny_images(1))


def hidden_split(views: int = 2) -> HiddenSplit:
    source = TensorSplit(torch.zeros(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 1]), ("a", "b"), "source")
    states = np.arange(views * 5 * 6, dtype=np.float16).reshape(views, 5, 2, 3)
    return HiddenSplit(states, source, "key")


def test_hidden_states_are_a_split() -> None:
    split = hidden_split()
    assert isinstance(split, Split)
    assert len(split) == 5
    batch = next(split.subset([4, 0]).batches(2))
    assert batch.labels.tolist() == [1, 0]
    assert batch.pixel_values.dtype == torch.float32
    assert batch.pixel_values[:, 0, 0].tolist() == [24.0, 0.0]


def test_each_epoch_sees_the_next_view() -> None:
    split = hidden_split()
    firsts = [next(split.at_epoch(epoch).subset([1]).batches(1)).pixel_values[0, 0, 0].item() for epoch in range(3)]
    assert firsts == [6.0, 36.0, 6.0]


def test_shuffled_batches_keep_states_and_labels_together() -> None:
    batches = list(hidden_split().batches(2, shuffle_seed=1))
    rows = torch.cat([batch.pixel_values[:, 0, 0] for batch in batches]) / 6
    labels = torch.cat([batch.labels for batch in batches])
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4]
    assert labels.tolist() == [[0, 1, 0, 1, 1][int(row)] for row in rows]


def test_hidden_states_cannot_be_resized() -> None:
    with pytest.raises(DataError, match="compute them again"):
        hidden_split().resized(4, 4)


def test_labels_of_a_foreign_split_are_read_once() -> None:
    own, reads = TensorSplit(torch.zeros(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 1]), ("a", "b"), "own"), []

    class Foreign(SimpleNamespace):
        def __len__(self) -> int:
            return 5

        def batches(self, size: int, *, shuffle_seed: int | None = None) -> Any:
            reads.append((size, shuffle_seed))
            return own.batches(size)

    source: Any = Foreign(name="foreign", class_names=("a", "b"), fingerprint="f")
    split = HiddenSplit(np.zeros((2, 5, 2, 3), np.float16), source, "key")
    for row in range(5):
        assert split.at_epoch(1).subset([row]).labels.tolist() == [int(own.labels[row])]
    assert len(reads) == 1
