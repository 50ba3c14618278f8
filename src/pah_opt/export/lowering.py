"""Quantized linear layers written out in plain operators, which other runtimes know.

torchao keeps a linear layer as it is and gives it a weight of a type of its own; what that type computes is hidden from
an exporter. Here each such layer is replaced by a module that says it: which values are integers, where they are
rounded, what is multiplied in int8. Integers stay integers: a file is as small as the artifact.

One module serves two forms. In the form ``torch`` it is made of ATen operators alone, so that a program runs where
torchao is not installed. In the form ``onnx`` it is made of ``QuantizeLinear``, ``DequantizeLinear`` and
``MatMulInteger``, which ONNX Runtime, OpenVINO and TensorRT look for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

Form = Literal["torch", "onnx"]
Rounding = Literal["own", "fixed", "none", "tokens"]
"""Which activations a written-out layer rounds: those it rounds now (``own``); of these, only those whose steps were
fixed beforehand (``fixed``); none; or every token in every layer, as some runtimes do of their own accord."""
EPS = torch.finfo(torch.float32).eps
"""Smallest scale of a token, as torchao has it."""
QDQ_OPSET = 13
MATMUL_INTEGER_OPSET = 10


class Int8Linear(nn.Module):
    """A linear layer with an int8 weight; activations are left in float.

    Args:
        weight: an ``Int8Tensor`` of torchao, ``(out, in)``, with one scale for each row or for all.
        bias: ``(out,)``, or None.
        form: what it is written out in.
    """

    def __init__(self, weight: Any, bias: Tensor | None, form: Form) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("weight", weight.qdata.detach().t().contiguous())
        self.register_buffer("scale", weight.scale.detach().float().flatten().expand(len(weight.qdata)).contiguous())
        self.register_buffer("pre_scale", _detached(weight.act_pre_scale))
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    weight: Tensor
    scale: Tensor
    pre_scale: Tensor | None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``inputs @ weight + bias``, in the type of the inputs."""
        scaled = inputs if self.pre_scale is None else inputs * self.pre_scale
        product = self.product(scaled.float())
        return (product if self.bias is None else product + self.bias).to(inputs.dtype)

    def product(self, inputs: Tensor) -> Tensor:
        """Return the product with the weight, float32, without the bias."""
        return inputs @ self.float_weight()

    def float_weight(self) -> Tensor:
        """Return the weight's values, float32, ``(in, out)``."""
        if self.form == "torch":
            return self.weight.float() * self.scale
        return _dequantized(self.weight, self.scale, torch.zeros_like(self.weight[0]), axis=1)

    def integer_product(self, values: Tensor) -> Tensor:
        """Return the product of int8 values with the int8 weight, exact, as float32."""
        if self.form == "torch":
            rows = torch._int_mm(values.reshape(-1, values.shape[-1]), self.weight)  # noqa: SLF001  # torch's int8 product
            return rows.reshape(*values.shape[:-1], -1).float()
        shape = (*values.shape[:-1], self.weight.shape[1])
        return torch.onnx.ops.symbolic(
            "MatMulInteger", (values, self.weight), dtype=torch.int32, shape=shape, version=MATMUL_INTEGER_OPSET
        ).float()


class StaticInt8Linear(Int8Linear):
    """The same with activations rounded to int8 steps that were fixed beforehand."""

    def __init__(self, weight: Any, bias: Tensor | None, form: Form) -> None:
        super().__init__(weight, bias, form)
        self.low, self.high = _steps(weight)
        zero = weight.act_quant_zero_point
        symmetric = zero is None or not _asymmetric(weight)
        self.register_buffer("input_scale", weight.act_quant_scale.detach().float().reshape(()))
        self.register_buffer(
            "input_zero", torch.zeros((), dtype=torch.int8) if symmetric else zero.detach().to(torch.int8).reshape(())
        )
        self.register_buffer("row_sums", self.weight.sum(dim=0, dtype=torch.int32).float())
        # Read here: while a model is traced, tensors have no values.
        scale, offset = float(self.input_scale), int(self.input_zero)
        self.limits = (self.low - offset) * scale, (self.high - offset) * scale

    input_scale: Tensor
    input_zero: Tensor
    row_sums: Tensor

    def product(self, inputs: Tensor) -> Tensor:
        """Return the product of the rounded inputs."""
        zero = self.input_zero.float()
        if self.form == "torch":
            steps = (torch.round(inputs * (1.0 / self.input_scale)) + zero).clamp(self.low, self.high)
            exact = self.integer_product(steps.to(torch.int8)) - zero * self.row_sums
            return exact * self.input_scale * self.scale
        if self.low > -128:  # QuantizeLinear always uses all of int8
            inputs = inputs.clamp(*self.limits)
        return _rounded(inputs, self.input_scale, self.input_zero) @ self.float_weight()


class DynamicInt8Linear(Int8Linear):
    """The same with every token's activations rounded to int8 steps of their own."""

    def __init__(self, weight: Any, bias: Tensor | None, form: Form) -> None:
        super().__init__(weight, bias, form)
        self.low, self.high = _steps(weight)
        self.asymmetric = _asymmetric(weight)
        if self.asymmetric:
            self.register_buffer("row_sums", self.weight.sum(dim=0, dtype=torch.int32).float())

    row_sums: Tensor

    def product(self, inputs: Tensor) -> Tensor:
        """Return the integer product of the rounded inputs, scaled back."""
        low = inputs.amin(dim=-1, keepdim=True).clamp(max=0.0)
        high = inputs.amax(dim=-1, keepdim=True).clamp(min=0.0)
        if not self.asymmetric:
            high = torch.maximum(-low, high)
            low = -high
        scale = ((high - low) / (self.high - self.low)).clamp(min=EPS)
        zero = (self.low - torch.round(low / scale)).clamp(self.low, self.high) if self.asymmetric else None
        steps = torch.round(inputs * (1.0 / scale))
        steps = steps if zero is None else steps + zero
        exact = self.integer_product(steps.clamp(self.low, self.high).to(torch.int8))
        return (exact if zero is None else exact - zero * self.row_sums) * scale * self.scale


def lower(model: nn.Module, form: Form, rounding: Rounding = "own") -> int:
    """Replace, in place, every linear layer with an int8 weight of torchao; return how many there were."""
    found = list(int8_layers(model))
    for path, layer in found:
        model.set_submodule(path, _kind_of(layer.weight, rounding)(layer.weight, layer.bias, form).eval())
    return len(found)


def unwrap(model: nn.Module) -> None:
    """Make linear layers with other weights of torchao compute those from plain tensors, in place.

    torch.export takes such weights too, and then stores them as pickled objects that need torchao to be loaded.
    """
    if any(hasattr(parameter, "__tensor_flatten__") for parameter in model.parameters()):
        from torchao.utils import unwrap_tensor_subclass

        unwrap_tensor_subclass(model)


def int8_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield path and module of each linear layer whose weight is an int8 tensor of torchao."""
    for path, module in model.named_modules():
        if type(getattr(module, "weight", None)).__name__ == "Int8Tensor":
            yield path, module


def _kind_of(weight: Any, rounding: Rounding) -> type[Int8Linear]:
    if rounding == "tokens":
        return DynamicInt8Linear
    if rounding == "none" or weight.act_quant_kwargs is None:
        return Int8Linear
    if weight.act_quant_scale is not None:
        return StaticInt8Linear
    return DynamicInt8Linear if rounding == "own" else Int8Linear


def _steps(weight: Any) -> tuple[int, int]:
    """Return the lowest and highest int8 value of activations."""
    return (-64, 63) if getattr(weight.act_quant_kwargs, "reduce_range", False) else (-128, 127)


def _asymmetric(weight: Any) -> bool:
    mapping = getattr(weight.act_quant_kwargs, "mapping_type", None)
    return getattr(mapping, "name", "SYMMETRIC") == "ASYMMETRIC"


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _dequantized(values: Tensor, scale: Tensor, zero: Tensor, *, axis: int = 1) -> Tensor:
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (values, scale, zero), {"axis": axis}, dtype=torch.float32, shape=values.shape,
        version=QDQ_OPSET,
    )  # fmt: skip


def _rounded(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    quantized = torch.onnx.ops.symbolic(
        "QuantizeLinear", (values, scale, zero), dtype=torch.int8, shape=values.shape, version=QDQ_OPSET
    )
    return _dequantized(quantized, scale, zero)
