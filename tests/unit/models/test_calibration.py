"""Calibration sees what the layers see, block by block as in one pass, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.models.calibration import BlockRunner, Covariance, collect_inputs_covariance, evenly_spaced
from pah_opt.models.watching import watching_inputs, watching_outputs
from pah_opt.splits import Batch
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_vit


class Images:
    """A Split of given pixels."""

    name = "some images"
    class_names = ("a", "b")
    fingerprint = "given"

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        for part in self.pixels.split(batch_size):
            yield Batch(part, torch.zeros(len(part), dtype=torch.long))

    def subset(self, indices: Any) -> Images:
        return Images(self.pixels[list(indices)])

    def resized(self, height: int, width: int) -> Images:
        return self


def ready(model: Any) -> tuple[nn.Module, Any]:
    adapter = find_adapter(model, tuple(pah_opt_model_adapters()))
    model = adapter.prepare(model)
    return model, adapter.layout(model)


def test_streamed_moments_are_those_of_the_whole() -> None:
    data = torch.randn(90, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6) + 100
    seen = Covariance(5)
    for part in data.reshape(9, 2, 5, 5):
        seen.update(part)
    exact = data.double()
    assert seen.count == 90
    torch.testing.assert_close(seen.mean, exact.mean(0))
    torch.testing.assert_close(seen.matrix, torch.cov(exact.T, correction=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.second_moment, exact.T @ exact / 90, rtol=1e-5, atol=1e-5)


def test_a_large_mean_costs_no_digits() -> None:
    """Sums of squares about zero would leave nothing of a variance of one in float32."""
    data = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) + 3000
    seen = Covariance(3)
    seen.update(data)
    torch.testing.assert_close(seen.matrix, torch.cov(data.double().T, correction=0), rtol=1e-4, atol=1e-4)


def test_a_weight_of_three_is_as_good_as_three_copies() -> None:
    data = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    weighted, copied = Covariance(3), Covariance(3)
    weighted.update(data, torch.tensor([3.0, 1.0]))
    copied.update(torch.cat([data[:, :1]] * 3 + [data[:, 1:]], dim=1))
    torch.testing.assert_close(weighted.mean, copied.mean)
    torch.testing.assert_close(weighted.matrix, copied.matrix, atol=1e-5, rtol=1e-5)
    assert (weighted.count, weighted.mass) == (8, 16.0)


def test_nothing_seen_gives_zeros() -> None:
    assert not Covariance(3).matrix.any()
    assert not Covariance(3).mean.any()


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_block_by_block_sees_the_same_as_one_pass(name: str) -> None:
    model, layout = ready(TINY_MODELS[name](blocks=3))
    images = Images(tiny_images(7))
    paths = [path for block in layout.blocks for path in (block.attention.output, block.mlp.fc2)]
    whole = collect_inputs_covariance(model, layout, paths, images, batch_size=4)
    runner = BlockRunner(model, layout, images, batch_size=3)
    for index, block in enumerate(layout.blocks):
        for path, seen in runner.covariances(index, [block.attention.output, block.mlp.fc2]).items():
            assert seen.count == whole[path].count
            torch.testing.assert_close(seen.matrix, whole[path].matrix, atol=1e-6, rtol=1e-5)
        runner.advance(index)


def test_a_changed_block_is_what_the_next_one_sees() -> None:
    model, layout = ready(tiny_vit())
    images = Images(tiny_images(4))
    runner = BlockRunner(model, layout, images)
    with torch.no_grad():
        model.get_submodule(layout.blocks[0].mlp.fc2).bias.add_(1.0)
    runner.advance(0)
    path = layout.blocks[1].attention.output
    seen = runner.covariances(1, [path])[path]
    torch.testing.assert_close(seen.mean, collect_inputs_covariance(model, layout, [path], images)[path].mean)


def test_hooks_are_gone_even_after_an_error() -> None:
    model, layout = ready(tiny_vit())
    fc1 = model.get_submodule(layout.blocks[0].mlp.fc1)
    for watching in (watching_inputs, watching_outputs):
        with pytest.raises(RuntimeError, match="seen"), watching({"fc1": fc1}, _fail):
            model(tiny_images(1))
    with pytest.raises(DataError):
        BlockRunner(model, layout, Images(torch.full((1, 3, 32, 32), torch.nan)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def _fail(_path: str, _tensor: torch.Tensor) -> None:
    raise RuntimeError("seen")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [(torch.zeros(0, 3, 32, 32), "there are no calibration images"),
     (torch.zeros(2, 3, 16, 16), r"have shape \(2, 3, 16, 16\), the model takes \(batch, 3, 32, 32\)"),
     (torch.full((2, 3, 32, 32), torch.inf), "hold NaN or infinity")],
)  # fmt: skip
def test_images_that_cannot_be_used_are_refused(pixels: torch.Tensor, message: str) -> None:
    model, layout = ready(tiny_vit())
    with pytest.raises(DataError, match=message):
        BlockRunner(model, layout, Images(pixels))
    with pytest.raises(DataError, match=message):
        collect_inputs_covariance(model, layout, layout.mlp_layers, Images(pixels))


def test_no_images_at_all_are_refused() -> None:
    model, layout = ready(tiny_vit())
    with pytest.raises(DataError, match="there are no calibration images"):
        BlockRunner(model, layout, None)


def test_weights_that_are_not_finite_are_named_by_the_layer_that_shows_it() -> None:
    model, layout = ready(tiny_vit())
    with torch.no_grad():
        model.get_submodule(layout.blocks[0].mlp.fc1).weight[0, 0] = torch.nan
    with pytest.raises(DataError, match=r"inputs of vit.layers.0.mlp.fc2 are not finite"):
        BlockRunner(model, layout, Images(tiny_images(2))).covariances(0, [layout.blocks[0].mlp.fc2])


def test_a_layer_that_does_not_run_is_named() -> None:
    model, layout = ready(tiny_vit())
    runner = BlockRunner(model, layout, Images(tiny_images(2)))
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.1.mlp.fc2 did not run"):
        runner.covariances(0, [layout.blocks[1].mlp.fc2])


def test_evenly_spaced_images_cover_the_whole_order() -> None:
    images = Images(torch.arange(10.0).reshape(10, 1, 1, 1))
    assert evenly_spaced(images, 4).batches(4).__next__().pixel_values.flatten().tolist() == [0.0, 2.0, 5.0, 7.0]
    assert evenly_spaced(images, 10) is images
