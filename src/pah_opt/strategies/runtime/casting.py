"""Half precision for a whole model that still takes float32 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from pah_opt.optimizer import Context


class CastingConv2d(nn.Conv2d):
    """A convolution that takes inputs of any floating-point type and computes in that of its weight.

    Hugging Face models cast their pixels themselves, timm's and torchvision's do not.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Conv2d's name
        """Return the convolution of ``input``, ``(batch, channels, height, width)``, in the type of the weight."""
        return super().forward(input.to(self.weight.dtype))


def cast_inputs_of(model: nn.Module, path: str) -> None:
    """Make the convolution at ``path`` cast its input; it stays the same object with the same parameters.

    Raises:
        UnsupportedModelError: there is no plain convolution.
    """
    layer = model.get_submodule(path)
    if type(layer) not in (nn.Conv2d, CastingConv2d):
        raise UnsupportedModelError(
            f"{path} is a {type(layer).__name__}; a model whose patch embedding is an nn.Conv2d can be cast"
        )
    layer.__class__ = CastingConv2d


def casting_layers(model: nn.Module) -> list[str]:
    """Return the paths of layers that cast their input."""
    return [path for path, module in model.named_modules() if isinstance(module, CastingConv2d)]


def is_of(model: nn.Module, dtype: str) -> bool:
    """Tell whether every floating-point parameter is of this type."""
    return all(p.dtype == getattr(torch, dtype) for p in model.parameters() if p.is_floating_point())


def cast_model(model: nn.Module, dtype: str, context: Context) -> nn.Module:
    """Cast every floating-point tensor of ``model`` in place.

    Raises:
        UnsupportedModelError: values do not fit into the type; names the parameters.
    """
    kind: torch.dtype = getattr(torch, dtype)
    layout = context.adapter.layout(model)
    _refuse_overflow(model, kind)
    cast_inputs_of(model, layout.patch_embedding)
    return model.to(kind)


def _refuse_overflow(model: nn.Module, kind: torch.dtype) -> None:
    limit = torch.finfo(kind).max
    plain = ((name, p) for name, p in model.named_parameters() if p.device.type != "meta" and p.is_floating_point())
    large = [name for name, parameter in plain if parameter.numel() and float(parameter.detach().abs().max()) > limit]
    if large:
        raise UnsupportedModelError(
            f"values of {', '.join(large[:3])} do not fit into {str(kind).removeprefix('torch.')} (at most {limit:g}); "
            "use dtype: bf16"
        )
