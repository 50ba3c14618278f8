"""Static int8: what ruins a Vision Transformer, and what keeps the default from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt import Artifact, Data, Recipe, Step, apply
from pah_opt.data import TensorSplit
from pah_opt.errors import AccuracyCollapseError, DataError
from pah_opt.strategies.torchao.observe import SAMPLE_ROWS, Seen, observe
from pah_opt.strategies.torchao.static import ALL, ALPHAS, HALF, divisors, fix, naive, rounded_rows
from pah_opt.testing import tiny_images


def seen_of(rows: torch.Tensor, ndim: int = 3) -> Seen:
    return Seen(rows, rows.amin(dim=0), rows.amax(dim=0), ndim)


def outlier_inputs(channels: int = 32, rows: int = 400) -> torch.Tensor:
    values = torch.randn(rows, channels, generator=torch.Generator().manual_seed(1))
    values[:, 5] *= 80
    values[:, 9] += 40
    return values


def random_weight(out: int = 24, into: int = 32) -> torch.Tensor:
    return torch.randn(out, into, generator=torch.Generator().manual_seed(2)) * 0.1


def test_outlier_channels_ruin_naive_static_and_not_the_default(
    run: Callable[..., Any], outlier_vit: nn.Module, pixels: torch.Tensor
) -> None:
    ruined = run(outlier_vit, scheme="int8-static", naive=True).error(pixels)
    default = run(outlier_vit, scheme="int8-static").error(pixels)
    dynamic = run(outlier_vit, scheme="int8-dynamic").error(pixels)
    assert ruined > 0.3
    assert default < ruined / 10
    assert default < dynamic


def labelled_by(model: nn.Module, count: int = 240) -> Data:
    """Images that the model classifies without a mistake: its own answers, balanced, are their labels."""
    pixels = tiny_images(count, seed=3)
    with torch.no_grad():
        model.classifier.bias -= model(pixels).logits.mean(0)
        labels = model(pixels).logits.argmax(-1)
    names = [str(index) for index in range(model.config.num_labels)]
    return Data(TensorSplit(pixels[:40], labels[:40], names), TensorSplit(pixels[40:], labels[40:], names))


def test_a_model_that_naive_static_ruins_is_caught_and_the_cause_is_named(outlier_vit: nn.Module) -> None:
    data = labelled_by(outlier_vit)

    def applied(**parameters: Any) -> Artifact:
        return apply(outlier_vit, Recipe(steps=[Step.of("torchao", scheme="int8-static", **parameters)]), data)

    with pytest.raises(AccuracyCollapseError, match=r"torchao.*at chance.*per-tensor static int8"):
        applied(naive=True)
    assert applied().steps[0].after["held_out_top1"] > 0.8


def test_smoothing_alone_helps_against_outliers(
    run: Callable[..., Any], outlier_vit: nn.Module, pixels: torch.Tensor
) -> None:
    without = run(outlier_vit, scheme="int8-static", smooth=None).error(pixels)
    assert run(outlier_vit, scheme="int8-static", smooth=0.5).error(pixels) < without / 2


def test_smoothed_layer_computes_the_same_product() -> None:
    inputs, weight = outlier_inputs(), random_weight()
    by = divisors(seen_of(inputs), weight, 0.5)
    assert torch.allclose((inputs / by) @ (weight * by).T, inputs @ weight.T, rtol=1e-4, atol=1e-3)


def test_divisors_follow_the_papers_formula() -> None:
    inputs, weight = outlier_inputs(), random_weight()
    by = divisors(seen_of(inputs), weight, 0.75)
    wanted = inputs.abs().amax(dim=0) ** 0.75 / weight.abs().amax(dim=0) ** 0.25
    assert torch.allclose(by, wanted)


def test_auto_is_no_worse_than_any_alpha_that_it_tries() -> None:
    inputs, weight = outlier_inputs(), random_weight()
    auto = fix(seen_of(inputs), weight, "auto")
    assert auto.error == min(fix(seen_of(inputs), weight, alpha).error for alpha in ALPHAS)


def test_one_sided_inputs_use_all_steps_with_a_zero_point() -> None:
    inputs = torch.rand(500, 16, generator=torch.Generator().manual_seed(0))
    fixed = fix(seen_of(inputs), random_weight(8, 16), None)
    assert fixed.zero_point is not None
    assert int(fixed.zero_point) < -100
    assert float(fixed.scale) < 1.05 / 255


def test_static_scales_have_as_many_dimensions_as_the_inputs() -> None:
    fixed = fix(seen_of(outlier_inputs(), ndim=2), random_weight(), "auto")
    assert fixed.scale.shape == (1, 1)
    assert fixed.zero_point is not None
    assert fixed.zero_point.shape == (1, 1)
    assert fixed.zero_point.dtype is torch.int8


def test_naive_scale_is_the_largest_absolute_value() -> None:
    inputs = outlier_inputs()
    fixed = naive(seen_of(inputs))
    assert float(fixed.scale) == pytest.approx(float(inputs.abs().max()) / 127.5)
    assert fixed.zero_point is None
    assert fixed.divisor is None


def test_half_the_steps_are_enough_for_weights_on_cpus_that_overflow() -> None:
    inputs, weight = torch.randn(300, 32, generator=torch.Generator().manual_seed(0)), random_weight()
    full, half = (fix(seen_of(inputs), weight, "auto", steps) for steps in (ALL, HALF))
    assert float(half.scale) == pytest.approx(float(full.scale), rel=0.3), "the inputs use all steps"
    assert full.error < half.error < 3 * full.error
    assert rounded_rows(weight, HALF).unique().numel() < rounded_rows(weight, ALL).unique().numel()


def test_report_says_how_each_layer_was_calibrated(run: Callable[..., Any], vit: nn.Module) -> None:
    achieved = run(vit, scheme="int8-static", images=10).achieved
    assert achieved["calibration_images"] == 10
    assert set(achieved["static"]) == set(achieved["quantized"])
    assert all(0 < layer["output_error"] < 0.1 for layer in achieved["static"].values())


def test_observed_ranges_cover_every_image_though_rows_are_a_sample(
    adapter: Callable[..., Any], images: Callable[..., Any], vit: nn.Module
) -> None:
    from pah_opt.progress import Progress

    split, path = images(vit, 60), "vit.layers.1.mlp.fc1"
    layer, inputs = vit.get_submodule(path), []
    found = observe(
        vit, adapter(vit).layout(vit), {path: layer}, split, batch_size=7, seed=0, progress=Progress()
    )[path]  # fmt: skip
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].reshape(-1, 64)))
    with torch.no_grad():
        vit(split.pixel_values)
    handle.remove()
    assert torch.allclose(found.low, inputs[0].amin(dim=0), atol=1e-5)
    assert torch.allclose(found.high, inputs[0].amax(dim=0), atol=1e-5)
    assert SAMPLE_ROWS * 0.9 < len(found.rows) <= SAMPLE_ROWS + 9


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("parameters", [{"scheme": "int8-static"}, {"guarded": {"max_kl": 1.0}}], ids=str)
def test_too_few_calibration_images_are_refused_with_both_numbers(
    run: Callable[..., Any], images: Callable[..., Any], vit: nn.Module, count: int, parameters: dict[str, Any]
) -> None:
    split = images(vit, 8).subset(range(count))
    with pytest.raises(DataError, match=f"at least 8 calibration images and has {count}"):
        run(vit, split, **parameters)


def test_missing_calibration_images_are_refused(run: Callable[..., Any], vit: nn.Module) -> None:
    with pytest.raises(DataError, match="has 0"):
        run(vit, None, scheme="int8-static")


@pytest.mark.parametrize("scheme", ["int8-static", "int4-weight-only"])
def test_calibration_images_with_nan_are_refused(
    run: Callable[..., Any], images: Callable[..., Any], vit: nn.Module, scheme: str
) -> None:
    split = images(vit, 12)
    split.pixel_values[3, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        run(vit, split, scheme=scheme)


@pytest.mark.parametrize("scheme", ["int8-static", "int4-weight-only"])
def test_calibration_images_of_another_shape_are_refused_with_both_shapes(
    run: Callable[..., Any], images: Callable[..., Any], vit: nn.Module, scheme: str
) -> None:
    from pah_opt.data import TensorSplit
    from pah_opt.testing import tiny_images

    split = TensorSplit(tiny_images(12, image=48), torch.arange(12) % 10, [str(i) for i in range(10)])
    with pytest.raises(DataError, match=r"48, 48\).*\(batch, 3, 32, 32\)"):
        run(vit, split, scheme=scheme)


def test_activations_that_overflow_are_refused(run: Callable[..., Any], vit: nn.Module) -> None:
    with torch.no_grad():
        vit.vit.layers[0].mlp.fc1.weight.fill_(3e38)
    with pytest.raises(DataError, match=r"inputs of .* are not finite"):
        run(vit, scheme="int8-static")


def test_the_error_without_a_bias_is_what_is_left_when_nothing_is_given_back() -> None:
    inputs = nn.functional.gelu(torch.randn(300, 32, generator=torch.Generator().manual_seed(0)) + 1)
    weight = random_weight(16, 32)
    given_back, left = (fix(seen_of(inputs), weight, None, bias=bias) for bias in (True, False))
    assert given_back.shift is not None
    assert left.shift is None
    assert left.error > given_back.error
