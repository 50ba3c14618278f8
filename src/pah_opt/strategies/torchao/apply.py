"""Run the ``torchao`` step on a model: train, observe, quantize, guard, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.calibration import check_images, enough_images, has_enough_images
from pah_opt.models.gptq import round_in_order
from pah_opt.models.precision import multiplies_int8
from pah_opt.strategies.torchao.convert import expect_int4, overflows, quantize, quantize_int4, quantize_static
from pah_opt.strategies.torchao.guard import Guardian
from pah_opt.strategies.torchao.layers import Assignment, assign, problems
from pah_opt.strategies.torchao.observe import observe
from pah_opt.strategies.torchao.qat import train
from pah_opt.strategies.torchao.scan import Scan, tensors_of
from pah_opt.strategies.torchao.static import ALL, HALF, Fixed, fix, naive

if TYPE_CHECKING:
    from torch import Tensor

    from pah_opt.adapt import TrainResult
    from pah_opt.optimizer import Context
    from pah_opt.strategies.torchao.config import Guard, Scheme, TorchaoConfig

ALONE: tuple[Scheme, ...] = ("int8-weight-only", "int8-dynamic", "int8-qat", "fp8-weight-only", "fp8-dynamic")
"""Schemes that need nothing but a layer's weight when it is quantized."""
MULTIPLIED: tuple[Scheme, ...] = ("int8-dynamic", "int8-static", "int8-qat")
"""Schemes whose layers multiply int8 by int8."""
SLOW_PRODUCTS = (
    "this CPU has no int8 products (VNNI): torch multiplies them many times slower than float32, compiled or not; for "
    "speed here cut widths, blocks or inputs; for size use int8-weight-only"
)


def quantize_model(model: nn.Module, config: TorchaoConfig, context: Context) -> tuple[nn.Module, Assignment]:
    """Quantize ``model`` in place and report to ``context``.

    Returns:
        The model, and what each layer got (without layers that the guard gave back).

    Raises:
        UnsupportedModelError: the config does not fit the model.
        DataError: images are missing, too few, or do not fit.
    """
    wrong = problems(model, config, context)
    if wrong:
        raise UnsupportedModelError("torchao cannot quantize this model: " + "; ".join(wrong))
    assignment = assign(model, context.adapter.layout(model), config)
    if context.planning:
        return _planned(model, assignment, config, context), assignment
    trained = assignment.using("int8-qat")
    if trained:
        _check_calibration(model, assignment, config, context)
        context.record("training", _summary(train(model, trained, config.training, context)))
    model.requires_grad_(requires_grad=False)
    if config.guarded is None:
        _quantize(model, assignment, config, context)
    else:
        assignment = _guarded(model, assignment, config, config.guarded, context)
    _record(assignment, context)
    _warn_of_slow_products(assignment, next(model.parameters()).device, context)
    return model, assignment


def _check_calibration(model: nn.Module, assignment: Assignment, config: TorchaoConfig, context: Context) -> None:
    """Look at the images that will be observed after training, which takes long and changes the model.

    Raises:
        DataError: they are too few or do not fit.
    """
    layout = context.adapter.layout(model)
    wanted = {"int8-static": config.images} if assignment.using("int8-static") else {}
    if assignment.using("int4-weight-only") and config.rounding == "gptq":
        wanted["rounding gptq"] = config.images
    if config.guarded is not None:
        wanted["guarded"] = config.guarded.images
    for purpose, count in wanted.items():
        check_images(enough_images(context.calibration, count, purpose), layout, config.batch_size)


def _summary(result: TrainResult) -> dict[str, Any]:
    data = result.to_data()
    return {"steps": result.steps, "stopped": result.stopped, "history": list(data["history"])}


def _record(assignment: Assignment, context: Context) -> None:
    context.record("quantized", dict(assignment.schemes))
    context.record("left_in_float", dict(assignment.left))


def _warn_of_slow_products(assignment: Assignment, device: torch.device, context: Context) -> None:
    if any(assignment.using(scheme) for scheme in MULTIPLIED) and not multiplies_int8(device):
        context.record("slow_products", SLOW_PRODUCTS)


def _planned(model: nn.Module, assignment: Assignment, config: TorchaoConfig, context: Context) -> nn.Module:
    """Give a model without values the tensors that it would have; what the guard gives back cannot be foreseen."""
    for path in assignment.using("int8-static"):
        layer = _linear(model, path)
        quantize_static(layer, _placeholder(layer, config), whole_weight=config.naive)
    for path in assignment.using("int4-weight-only"):
        expect_int4(_linear(model, path), config.group_size)
    _quantize_alone(model, assignment, planning=True)
    _record(assignment, context)
    if not context.environment.has_cuda:  # the model will be on the CPU
        _warn_of_slow_products(assignment, torch.device("cpu"), context)
    return model


def _placeholder(layer: nn.Linear, config: TorchaoConfig) -> Fixed:
    device = layer.weight.device
    divisor = None if config.naive or config.smooth is None else torch.ones(layer.in_features, device=device)
    zero_point = None if config.naive else torch.zeros((1, 1, 1), dtype=torch.int8, device=device)
    return Fixed(torch.ones((1, 1, 1), device=device), zero_point, divisor, None, 0.0)


def _quantize(model: nn.Module, assignment: Assignment, config: TorchaoConfig, context: Context) -> None:
    # Inputs are observed while every layer is still in float.
    fixed = _fixed(model, assignment, config, context)
    _quantize_int4(model, assignment, config, context)
    for path, how in fixed.items():
        quantize_static(_linear(model, path), how, whole_weight=config.naive)
    _quantize_alone(model, assignment)


def _quantize_alone(model: nn.Module, assignment: Assignment, *, planning: bool = False) -> None:
    for scheme in ALONE:
        paths = assignment.using(scheme)
        if paths:
            # A plan may be made for another machine, and torchao asks this one; the tensors have the same sizes.
            quantize(model, paths, "fp8-weight-only" if planning and scheme == "fp8-dynamic" else scheme)


def _fixed(model: nn.Module, assignment: Assignment, config: TorchaoConfig, context: Context) -> dict[str, Fixed]:
    """Choose how the inputs of static layers are quantized, and report it."""
    layers = {path: _linear(model, path) for path in assignment.using("int8-static")}
    if not layers:
        return {}
    split = enough_images(context.calibration, config.images, "int8-static")
    layout = context.adapter.layout(model)
    seen = observe(
        model, layout, layers, split, batch_size=config.batch_size, seed=context.seed, progress=context.progress
    )
    if config.naive:
        return {path: naive(one) for path, one in seen.items()}
    steps = HALF if overflows(next(model.parameters()).device) else ALL
    fixed = {
        path: fix(one, layers[path].weight, config.smooth, steps, bias=layers[path].bias is not None)
        for path, one in seen.items()
    }
    context.record("static", {path: {"alpha": one.alpha, "output_error": one.error} for path, one in fixed.items()})
    context.record("calibration_images", len(split))
    return fixed


def _quantize_int4(model: nn.Module, assignment: Assignment, config: TorchaoConfig, context: Context) -> None:
    layers = {path: _linear(model, path) for path in assignment.using("int4-weight-only")}
    if not layers:
        return
    rounding = config.rounding or ("gptq" if has_enough_images(context.calibration) else "search")
    context.record("rounding", rounding)
    if rounding == "gptq":
        split = enough_images(context.calibration, config.images, "rounding gptq")
        context.record("calibration_images", len(split))

        def round_layer(_path: str, layer: nn.Linear, second_moment: Tensor) -> None:
            quantize_int4(layer, config.group_size, second_moment=second_moment)

        round_in_order(model, layers, split, context, round_layer, batch_size=config.batch_size)
        return
    for layer in layers.values():
        quantize_int4(layer, config.group_size, search=rounding == "search")


def _guarded(
    model: nn.Module, assignment: Assignment, config: TorchaoConfig, limit: Guard, context: Context
) -> Assignment:
    """Quantize, then give layers back their float tensors until the limit holds."""
    split = enough_images(context.calibration, limit.images, "guarded")
    scan = Scan(model, context.adapter, split, config.batch_size)
    reference, labels = scan.all_logits()
    floats = {path: tensors_of(model, path) for path in assignment.schemes}
    _quantize(model, assignment, config, context)
    guarded = Guardian(scan, reference, labels, floats, limit).guard(assignment.schemes, context.progress)
    context.record("guarded", guarded.to_data())
    return _without(assignment, guarded.restored)


def _without(assignment: Assignment, restored: tuple[str, ...]) -> Assignment:
    schemes = {path: scheme for path, scheme in assignment.schemes.items() if path not in restored}
    return Assignment(schemes, assignment.left | dict.fromkeys(restored, "given back by guarded"))


def _linear(model: nn.Module, path: str) -> nn.Linear:
    return model.get_submodule(path)  # type: ignore[return-value]  # chosen among linear layers
